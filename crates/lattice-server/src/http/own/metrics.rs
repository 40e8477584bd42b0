//! `/metrics`.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::prometheus_text::CONTENT_TYPE;

use crate::http::AppState;
use crate::http::reply::{Failure, Result, blocking};
use crate::metrics::Now;

/// Counters and measurements, for Prometheus
#[utoipa::path(
    get, path = "/metrics", tag = "operation", security(("key" = ["read"])),
    responses((
        status = 200, description = "Metrics in Prometheus's text format", body = String,
        content_type = "text/plain; version=0.0.4",
    )),
)]
pub(super) async fn metrics(State(app): AppState) -> Result<Response> {
    blocking(move || {
        let (waiting, running) = app.store.counts()?;
        let now = Now {
            waiting,
            running,
            paused: app.store.queue_settings()?.0,
            sockets: app.hub.len(),
            listeners: app.hub.journal.listeners(),
            resident: app.host.memory().resident,
        };
        let text = app.metrics.text(&now).map_err(Failure::internal)?;
        Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
    })
    .await
}
