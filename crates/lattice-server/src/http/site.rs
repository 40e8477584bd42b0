//! Pages: the front end's folder, or a small page of our own that shows what goes on.

use std::path::Path;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::AppState;
use super::reply::{Failure, blocking};
use crate::files::{Disposition, FileAnswer, FileError, Folder, inside};

/// The page that is served where there is no front end.
const PAGE: [(&str, &str, &str); 3] = [
    ("/", "text/html; charset=utf-8", include_str!("../../page/index.html")),
    ("/status.css", "text/css; charset=utf-8", include_str!("../../page/status.css")),
    ("/status.js", "text/javascript; charset=utf-8", include_str!("../../page/status.js")),
];

/// What front ends look for, whether it is there or not: without an answer each start shows failures in the browser's
/// log.
const OPTIONAL: [(&str, &str, &str); 2] = [
    ("user.css", "text/css; charset=utf-8", ""),
    ("templates/index.json", "application/json; charset=utf-8", "[]"),
];

/// What that page may do: nothing but what it is made of.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; \
                           connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'";

/// Headers of the first page of a front end: a new version is to be seen at once.
const FRESH: [(header::HeaderName, HeaderValue); 3] = [
    (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    (header::PRAGMA, HeaderValue::from_static("no-cache")),
    (header::EXPIRES, HeaderValue::from_static("0")),
];

/// `GET /`.
pub(super) async fn index(State(app): AppState, headers: HeaderMap) -> Result<Response, Failure> {
    if app.front_end.is_none() {
        return Ok(own("/").unwrap_or_else(|| StatusCode::NOT_FOUND.into_response()));
    }
    let mut response = blocking(move || {
        let Some(root) = &app.front_end else { return Err(Failure::Status(StatusCode::NOT_FOUND)) };
        file(root, Path::new("index.html"), &headers)
    })
    .await?;
    response.headers_mut().extend(FRESH.map(|(name, value)| (Some(name), value)));
    Ok(response)
}

/// Whatever no route matches.
pub(super) async fn other(State(app): AppState, request: Request) -> Result<Response, Failure> {
    let path = request.uri().path();
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        // Clients that forget to encode slashes in names of files are told that this is no way to change one.
        let named = path.strip_prefix("/api").unwrap_or(path).starts_with("/userdata/");
        return Ok(if named { super::not_allowed() } else { StatusCode::NOT_FOUND.into_response() });
    }
    if app.front_end.is_none() {
        return Ok(own(path).unwrap_or_else(|| StatusCode::NOT_FOUND.into_response()));
    }
    let decoded = percent_encoding::percent_decode_str(path.trim_start_matches('/')).decode_utf8();
    let Some(path) = decoded.ok().and_then(|path| inside(&path)) else {
        return Err(Failure::Status(StatusCode::NOT_FOUND));
    };
    let headers = request.headers().clone();
    blocking(move || {
        let Some(root) = &app.front_end else { return Err(Failure::Status(StatusCode::NOT_FOUND)) };
        file(root, &path, &headers)
    })
    .await
}

fn file(root: &Folder, path: &Path, headers: &HeaderMap) -> Result<Response, Failure> {
    if root.metadata(path).is_ok_and(|found| found.is_dir()) {
        return Err(Failure::Text(StatusCode::FORBIDDEN, "403: Forbidden".into()));
    }
    let file = match root.file(path) {
        Ok(file) => file,
        Err(FileError::System(e)) => return Err(Failure::internal(e)),
        Err(_) => {
            let optional = OPTIONAL.iter().find(|(name, ..)| Path::new(name) == path);
            let (_, kind, content) = optional.ok_or(Failure::Status(StatusCode::NOT_FOUND))?;
            return Ok(([(header::CONTENT_TYPE, *kind)], *content).into_response());
        }
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    FileAnswer { file, name, disposition: Disposition::Page }.respond(headers).map_err(Failure::internal)
}

/// A part of our own page.
fn own(path: &str) -> Option<Response> {
    let (_, kind, content) = PAGE.iter().find(|(name, ..)| *name == path)?;
    let headers = [
        (header::CONTENT_TYPE, *kind),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, PAGE_POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    Some((headers, *content).into_response())
}
