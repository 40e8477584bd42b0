//! Request bodies.

use std::sync::Arc;

use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use bytes::Bytes;
use http_body_util::LengthLimitError;
use serde::de::DeserializeOwned;

use super::reply::{Failure, Result};
use crate::app::App;

/// The whole body, no larger than the server allows.
pub(super) struct Content(pub(super) Bytes);

impl Content {
    /// The body as JSON, whatever the request says it is. Nesting is limited to 128 levels.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.0).map_err(|e| Failure::bad(format!("the body is not valid JSON: {e}")))
    }
}

impl FromRequest<Arc<App>> for Content {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self> {
        let limit = app.options.max_upload;
        let announced = request.headers().get(axum::http::header::CONTENT_LENGTH);
        let announced = announced.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|length| length > limit) {
            return Err(too_large(limit));
        }
        let limit_here = usize::try_from(limit).unwrap_or(usize::MAX);
        axum::body::to_bytes(request.into_body(), limit_here).await.map(Self).map_err(|e| {
            let large =
                std::error::Error::source(&e).is_some_and(<dyn std::error::Error>::is::<LengthLimitError>);
            if large { too_large(limit) } else { Failure::bad(format!("the body cannot be read: {e}")) }
        })
    }
}

pub(super) fn too_large(limit: u64) -> Failure {
    let text = format!("Maximum request body size {limit} exceeded.");
    Failure::Text(StatusCode::PAYLOAD_TOO_LARGE, text)
}
