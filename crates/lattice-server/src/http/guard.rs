//! Who may ask: hosts, origins, headers of every answer.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::app::App;
use crate::options::Access;

/// File endings of pictures, which clients may keep for a while.
const PICTURES: [&str; 9] = [".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"];

/// Refuses what pages of other sites ask, directly or by giving their own name the address of this machine.
pub(super) async fn check(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let access = &app.options.access;
    if !host_allowed(request.headers(), access, app.options.local()) {
        tracing::warn!("refused a request to the host {:?}", request.headers().get(header::HOST));
        return StatusCode::FORBIDDEN.into_response();
    }
    if access.cors.is_none() && foreign(&request) {
        tracing::warn!("refused a request from the origin {:?}", request.headers().get(header::ORIGIN));
        return StatusCode::FORBIDDEN.into_response();
    }
    let mut response = if request.method() == Method::OPTIONS {
        StatusCode::OK.into_response()
    } else {
        next.run(request).await
    };
    if let Some(origin) = &access.cors {
        allow_origin(response.headers_mut(), origin);
    }
    response
}

fn allow_origin(headers: &mut HeaderMap, origin: &str) {
    let origin = HeaderValue::from_str(origin).unwrap_or_else(|_| HeaderValue::from_static("null"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    let others: [(HeaderName, &'static str); 3] = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "POST, GET, DELETE, PUT, OPTIONS"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "Content-Type, Authorization"),
        (header::ACCESS_CONTROL_ALLOW_CREDENTIALS, "true"),
    ];
    for (name, value) in others {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// Whether the request is meant for this server. A page whose name was made to resolve to this machine asks under
/// that name; an address cannot be faked so.
fn host_allowed(headers: &HeaderMap, access: &Access, local: bool) -> bool {
    let Some(host) = headers.get(header::HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    let name = Authority::parse(host).name;
    let address = name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok();
    !local || address || loopback_name(&name) || access.hosts.iter().any(|h| h.eq_ignore_ascii_case(&name))
}

fn loopback_name(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

/// Whether a page of another site asks.
fn foreign(request: &Request) -> bool {
    let headers = request.headers();
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if let (Some(host), Some(origin)) = (text(header::HOST), text(header::ORIGIN)) {
        let authority = origin.split_once("://").map_or(origin, |(_, authority)| authority);
        return !Authority::parse(host).same(&Authority::parse(authority));
    }
    // Pictures and scripts of other pages come without an origin; links to the server's own page are fine.
    let fetch = |name: &'static str| text(HeaderName::from_static(name));
    fetch("sec-fetch-site") == Some("cross-site") && fetch("sec-fetch-mode") != Some("navigate")
}

/// Host and port of a URL or a `Host` header.
#[derive(Debug, PartialEq, Eq)]
struct Authority {
    name: String,
    port: Option<String>,
}

impl Authority {
    fn parse(text: &str) -> Self {
        let text = text.split('/').next().unwrap_or_default().to_ascii_lowercase();
        match text.rsplit_once(':') {
            // The colons of an IPv6 address stand in brackets.
            Some((name, port)) if !port.contains(']') => {
                Self { name: name.to_owned(), port: Some(port.to_owned()) }
            }
            _ => Self { name: text, port: None },
        }
    }

    /// Ports are compared only if both sides name one.
    fn same(&self, other: &Self) -> bool {
        self.name == other.name && (self.port.is_none() || other.port.is_none() || self.port == other.port)
    }
}

/// How long clients may keep what they got, and that they must not guess what it is.
pub(super) async fn headers(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    let cache = cache_control(&path, response.status());
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(cache) = cache {
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static(cache));
    }
    response
}

#[expect(clippy::case_sensitive_file_extension_comparisons, reason = "as clients know it")]
fn cache_control(path: &str, status: StatusCode) -> Option<&'static str> {
    let last = path.rsplit('/').next().unwrap_or_default();
    if path.ends_with(".js")
        || path.ends_with(".css")
        || (last.starts_with("index") && last.ends_with(".json"))
    {
        return Some("no-cache");
    }
    let path = path.to_lowercase();
    if !PICTURES.iter().any(|ending| path.ends_with(ending)) {
        return None;
    }
    match status.as_u16() {
        404 => Some("public, max-age=3600"),
        200..=206 | 301 | 308 => Some("public, max-age=86400"),
        302 | 303 | 307 => Some("no-cache"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request {
        let request = headers.iter().fold(Request::builder(), |r, (name, value)| r.header(*name, *value));
        request.body(axum::body::Body::empty()).unwrap()
    }

    #[test]
    fn other_sites_are_foreign() {
        for (host, origin, expected) in [
            ("127.0.0.1:8188", "http://127.0.0.1:8188", false),
            ("127.0.0.1:8188", "http://localhost:8188", true),
            ("localhost", "http://LOCALHOST:3000", false),
            ("[::1]:8188", "http://[::1]:8188", false),
            ("[::1]:8188", "http://[::1]:8189", true),
            ("box:8188", "https://evil.example", true),
            ("127.0.0.1:8188", "null", true),
        ] {
            assert_eq!(foreign(&request(&[("host", host), ("origin", origin)])), expected, "{host} {origin}");
        }
        assert!(!foreign(&request(&[("host", "127.0.0.1")])));
        let image = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")];
        assert!(foreign(&request(&image)));
        let link = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")];
        assert!(!foreign(&request(&link)));
    }

    #[test]
    fn names_that_were_made_to_point_here_are_refused() {
        let access = Access { hosts: vec!["studio.lan".into()], ..Access::default() };
        for (host, expected) in [
            ("127.0.0.1:8188", true),
            ("[::1]:8188", true),
            ("localhost", true),
            ("ui.localhost:1", true),
            ("Studio.lan:8188", true),
            ("evil.example", false),
            ("127.0.0.1.evil.example:8188", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
            assert_eq!(host_allowed(&headers, &access, true), expected, "{host:?}");
            assert!(host_allowed(&headers, &access, false));
        }
    }

    #[test]
    fn how_long_answers_are_kept() {
        for (path, status, expected) in [
            ("/a.js", 404, Some("no-cache")),
            ("/templates/index.de.json", 200, Some("no-cache")),
            ("/x/A.PNG", 200, Some("public, max-age=86400")),
            ("/x/a.webp", 404, Some("public, max-age=3600")),
            ("/x/a.webp", 302, Some("no-cache")),
            ("/x/a.webp", 500, None),
            ("/view", 200, None),
        ] {
            assert_eq!(
                cache_control(path, StatusCode::from_u16(status).unwrap()),
                expected,
                "{path} {status}"
            );
        }
    }
}
