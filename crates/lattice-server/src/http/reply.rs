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
}

impl Failure {
    /// The request cannot be understood.
    pub(super) fn bad(reason: impl std::fmt::Display) -> Self {
        Self::Json(
            StatusCode::BAD_REQUEST,
            json!({ "error": {
                "type": "bad_request",
                "message": reason.to_string(),
                "details": "",
                "extra_info": {},
            } }),
        )
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
        }
    }
}

impl From<StoreError> for Failure {
    fn from(e: StoreError) -> Self {
        Self::internal(e)
    }
}

/// Runs what waits for the disk or takes long beside the threads that answer requests.
pub(super) async fn blocking<T: Send + 'static>(f: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(f).await {
        Ok(result) => result,
        Err(e) => Err(Failure::internal(e)),
    }
}
