//! `/healthz` and `/readyz`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::health;
use crate::http::AppState;
use crate::http::reply::Reply;

/// Whether the server can do its work.
#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    /// `ok` or `unavailable`.
    status: &'static str,
    /// Why it cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// It can.
const OK: Health = Health { status: "ok", reason: None };

/// Whether the server runs
#[utoipa::path(
    get, path = "/healthz", tag = "operation", security(()),
    responses((status = 200, description = "It does", body = Health)),
)]
pub(super) async fn alive() -> Reply {
    Reply::json(&OK)
}

/// Whether a prompt would be taken now
///
/// Not while the server is stopping, nor while the queue cannot be written to.
#[utoipa::path(
    get, path = "/readyz", tag = "operation", security(()),
    responses(
        (status = 200, description = "It would", body = Health),
        (status = 503, description = "It would not", body = Health),
    ),
)]
pub(super) async fn ready(State(app): AppState) -> Response {
    match health::check(&app).await {
        Ok(()) => Reply::json(&OK).into_response(),
        Err(reason) => {
            let health = Health { status: "unavailable", reason: Some(reason) };
            (StatusCode::SERVICE_UNAVAILABLE, Reply::json(&health)).into_response()
        }
    }
}
