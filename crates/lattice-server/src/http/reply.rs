//! Answers.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

use crate::store::StoreError;

/// An answer that is no failure.
pub(super) enum Reply {
    /// A JSON document.
    Json(Vec<u8>),
    /// Done; there is nothing to say.
    Done,
}

/// An answer, or why there is none.
pub(super) type Result<T = Reply> = std::result::Result<T, Failure>;

impl Reply {
    pub(super) fn json<T: Serialize + ?Sized>(document: &T) -> Self {
        // Only maps with keys other than text cannot be written, and there are none.
        serde_json::to_vec(document).map_or(Self::Done, Self::Json)
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        match self {
            Self::Json(text) => json_response(StatusCode::OK, text),
            Self::Done => StatusCode::OK.into_response(),
        }
    }
}

fn json_response(status: StatusCode, text: Vec<u8>) -> Response {
    let kind = HeaderValue::from_static("application/json; charset=utf-8");
    (status, [(header::CONTENT_TYPE, kind)], text).into_response()
}

/// A request that is refused or fails.
#[derive(Debug)]
pub(super) enum Failure {
    /// A status and nothing else.
    Status(StatusCode),
    /// A status and a text.
    Text(StatusCode, String),
    /// A status and a JSON document.
    Json(StatusCode, serde_json::Value),
    /// The server is about to end; another may be there in a while.
    Stopping,
}

/// When to try again what a server that ends has refused, in seconds.
pub(super) const RETRY_AFTER: &str = "10";

impl Failure {
    /// The request cannot be understood.
    pub(super) fn bad(reason: impl std::fmt::Display) -> Self {
        Self::error(StatusCode::BAD_REQUEST, "bad_request", reason)
    }

    /// A status and an error of a kind, in the form of errors of `POST /prompt`.
    pub(super) fn error(status: StatusCode, kind: &str, reason: impl std::fmt::Display) -> Self {
        let error = json!({ "type": kind, "message": reason.to_string(), "details": "", "extra_info": {} });
        Self::Json(status, json!({ "error": error }))
    }

    /// The server cannot do what it should.
    pub(super) fn internal(reason: impl std::fmt::Display) -> Self {
        tracing::error!("{reason}");
        Self::Text(
            StatusCode::INTERNAL_SERVER_ERROR,
            "500 Internal Server Error\n\nServer got itself in trouble".into(),
        )
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match self {
            Self::Status(status) => status.into_response(),
            Self::Text(status, text) => (status, text).into_response(),
            Self::Json(status, document) => json_response(status, document.to_string().into_bytes()),
            Self::Stopping => {
                let failure =
                    Self::error(StatusCode::SERVICE_UNAVAILABLE, "stopping", "The server is stopping.");
                let mut response = failure.into_response();
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
                response
            }
        }
    }
}

impl From<StoreError> for Failure {
    fn from(e: StoreError) -> Self {
        match e {
            StoreError::NotQueued(_) => Self::error(StatusCode::NOT_FOUND, "not_queued", e),
            StoreError::Running(_) => Self::error(StatusCode::CONFLICT, "running", e),
            e => Self::internal(e),
        }
    }
}

/// Runs what waits for the disk or takes long beside the threads that answer requests.
pub(super) async fn blocking<T: Send + 'static>(f: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(f).await {
        Ok(result) => result,
        Err(e) => Err(Failure::internal(e)),
    }
}
