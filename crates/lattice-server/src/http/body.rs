//! Request bodies.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{FromRequest, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::LengthLimitError;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;

use super::AppState;
use super::reply::{Failure, Result};
use crate::app::App;

/// How long the rest of a body that is too large is read and thrown away.
const DISCARD: Duration = Duration::from_secs(10);

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

/// Refuses bodies that are said to be too large before anything is done with them. A client that is still sending a
/// body that has turned out to be too large would take the end of the connection for a failure and not read the answer:
/// the rest is read and thrown away.
pub(super) async fn limit(State(app): AppState, request: Request, next: Next) -> Response {
    let announced = request.headers().get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length <= app.options.max_upload) || request.body().is_end_stream() {
        return next.run(request).await;
    }
    let (head, body) = request.into_parts();
    let body = Arc::new(Mutex::new(body.into_data_stream()));
    let response = if announced.is_some() {
        too_large(app.options.max_upload).into_response()
    } else {
        let body = body.clone();
        let parts = futures_util::stream::poll_fn(move |context| body.lock().poll_next_unpin(context));
        next.run(Request::from_parts(head, Body::from_stream(parts))).await
    };
    if response.status() == StatusCode::PAYLOAD_TOO_LARGE {
        let rest = futures_util::stream::poll_fn(|context| body.lock().poll_next_unpin(context));
        let discard =
            rest.take_while(|part| std::future::ready(part.is_ok())).for_each(|_| std::future::ready(()));
        let _ = tokio::time::timeout(DISCARD, discard).await;
    }
    response
}
