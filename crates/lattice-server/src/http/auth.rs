//! Keys: who must show one, and what for.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;

use super::own::Needed;
use super::reply::Failure;
use super::{images, own};
use crate::app::App;
use crate::keys::Scope;

/// Browsers ask for a name and a password; the key is the password.
const CHALLENGE: &str = "Basic realm=\"Lattice\", charset=\"UTF-8\"";

/// Paths that need more than others of their method.
const ADMIN: [&str; 3] = ["/free", "/users", "/internal"];

/// Lets those in whose key allows what they ask for.
pub(super) async fn check(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let Some(gate) = &app.gate else { return next.run(request).await };
    let route = request.extensions().get::<MatchedPath>();
    let own = route.and_then(|route| own::description().needed(route.as_str(), request.method()));
    let needed = match own {
        Some(Needed::Nothing) => None,
        Some(Needed::Key(scope)) => Some(scope),
        None => needed(request.method(), request.uri().path()),
    };
    let Some(needed) = needed else { return next.run(request).await };
    let path = request.uri().path().to_owned();
    match key(request.headers()).and_then(|key| gate.scope(&key)) {
        Some(scope) if scope >= needed => next.run(request).await,
        Some(_) => refusal(&path, own.is_some(), StatusCode::FORBIDDEN, "This key does not allow that."),
        None => {
            let mut response = refusal(&path, own.is_some(), StatusCode::UNAUTHORIZED, "A key is needed.");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE));
            response
        }
    }
}

/// In the form that clients of the route expect.
fn refusal(path: &str, own: bool, status: StatusCode, text: &'static str) -> Response {
    if images::answers(path) {
        images::ApiError::key(status, text).into_response()
    } else if own {
        Failure::error(status, "key", text).into_response()
    } else {
        (status, text).into_response()
    }
}

/// What a request to a route of ComfyUI needs; None if anybody may. Our own routes say it in their description.
fn needed(method: &Method, path: &str) -> Option<Scope> {
    let path = path.strip_prefix("/api").filter(|rest| rest.starts_with('/')).unwrap_or(path);
    let below =
        |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let reading = matches!(*method, Method::GET | Method::HEAD);
    if *method == Method::OPTIONS {
        return None;
    }
    Some(match reading {
        true if below("/internal") => Scope::Admin,
        true => Scope::Read,
        false if ADMIN.iter().any(|prefix| below(prefix)) => Scope::Admin,
        false => Scope::Queue,
    })
}

/// The key that a request shows: `Authorization: Bearer KEY`, `X-API-Key: KEY`, or the password of Basic.
fn key(headers: &HeaderMap) -> Option<String> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    if let Some(key) = text("x-api-key") {
        return Some(key.trim().to_owned());
    }
    let (scheme, rest) = text("authorization")?.trim().split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(rest.trim()).ok()?;
    let (_, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some(password.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_requests_need() {
        for (method, path, expected) in [
            (Method::GET, "/queue", Some(Scope::Read)),
            (Method::GET, "/api/view", Some(Scope::Read)),
            (Method::GET, "/ws", Some(Scope::Read)),
            (Method::POST, "/prompt", Some(Scope::Queue)),
            (Method::POST, "/api/upload/image", Some(Scope::Queue)),
            (Method::POST, "/api/free", Some(Scope::Admin)),
            (Method::GET, "/internal/logs", Some(Scope::Admin)),
            (Method::POST, "/freedom", Some(Scope::Queue)),
            (Method::OPTIONS, "/prompt", None),
        ] {
            assert_eq!(needed(&method, path), expected, "{method} {path}");
        }
    }

    #[test]
    fn ways_to_show_a_key() {
        for (name, value, expected) in [
            ("authorization", "Bearer k", Some("k")),
            ("authorization", "bearer  k ", Some("k")),
            ("authorization", "Basic bWU6aw==", Some("k")),
            ("authorization", "Basic !", None),
            ("authorization", "k", None),
            ("x-api-key", "k", Some("k")),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            assert_eq!(key(&headers).as_deref(), expected, "{name}: {value}");
        }
    }
}
