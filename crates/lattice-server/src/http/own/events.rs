//! `/events`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use utoipa::IntoParams;

use super::Asked;
use crate::app::App;
use crate::http::AppState;
use crate::http::reply::{Failure, Result, blocking};
use crate::hub::{Heard, Listener};

/// How often something is sent when nothing happens, so that neither side takes the other for gone.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Asks proxies not to hold events back.
const NO_BUFFERING: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Wish {
    /// Only events of this prompt.
    prompt_id: Option<String>,
    /// The id of the last event seen, for clients that cannot set the header.
    last_event_id: Option<String>,
}

/// What happens, as Server-Sent Events
///
/// Events of a running prompt have the names and the data of the WebSocket messages: `execution_start`,
/// `execution_cached`, `executing`, `progress`, `executed`, `execution_success`, `execution_error`,
/// `execution_interrupted`. `finished` (`prompt_id`, `outcome`) comes when the prompt is in the history. `queue`
/// (`change`, `prompt_id`, `queue_remaining`) tells each change of the queue: `queued`, `started`, `finished`,
/// `put_back`, `removed`, `cleared`, `moved`, `edited`, `paused`, `resumed`, `reordered`.
///
/// Every event has an id. Who comes back with the last one (`Last-Event-ID`) goes on after it. Who does not, or has
/// missed more than is kept, first gets `resync`: `reason` (`connected`, `unknown_id`, `lagged`) and how things stand
/// (`queue_remaining`, `paused`, `order`, `running`, `node`).
#[utoipa::path(
    get, path = "/events", tag = "events", security(("key" = ["read"])),
    params(Wish, ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event seen")),
    responses((status = 200, description = "Events without end", body = String, content_type = "text/event-stream")),
)]
pub(super) async fn listen(State(app): AppState, wish: Asked<Wish>, headers: HeaderMap) -> Result<Response> {
    let Query(wish) = wish.map_err(Failure::bad)?;
    let header = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let last = header.map(str::to_owned).or(wish.last_event_id);
    let listener = Listener::new(app.hub.journal.clone(), last.as_deref(), wish.prompt_id);
    let events = unfold((app, listener), |(app, mut listener)| async {
        let heard = listener.next().await?;
        let event = Event::default().id(listener.last_id());
        let event = match heard {
            Heard::Event(entry) => event.event(entry.kind).data(&entry.data),
            Heard::Resync(reason) => event.event("resync").data(standing(&app, reason).await.to_string()),
        };
        Some((Ok::<_, Infallible>(event), (app, listener)))
    });
    let sse = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    Ok(([NO_BUFFERING, (header::CACHE_CONTROL, HeaderValue::from_static("no-store"))], sse).into_response())
}

/// How things stand.
async fn standing(app: &Arc<App>, reason: &str) -> Json {
    let running = app.engine.running();
    let asked = app.clone();
    let settings = blocking(move || Ok(asked.store.queue_settings()?)).await.ok();
    json!({
        "reason": reason,
        "queue_remaining": app.store.remaining(),
        "paused": settings.map(|(paused, _)| paused),
        "order": settings.map(|(_, order)| order),
        "running": running.as_ref().map(|running| &running.prompt_id),
        "node": running.as_ref().map(|running| &running.node),
    })
}
