//! `/ws`.

use std::sync::Arc;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::stream::SplitSink;
use futures_util::{SinkExt, StreamExt, stream};
use serde::Deserialize;

use super::prompt::MAX_ID;
use super::reply::Failure;
use super::{AppState, feature_flags};
use crate::app::App;
use crate::hub::{self, Client, ClientMessage, Next, Outgoing};

/// Largest message that a client may send.
const MAX_MESSAGE: usize = 1 << 20;

/// Most messages that are sent before the client is listened to again.
const AT_ONCE: usize = 256;

/// Bytes that a connection sets aside for what it reads and writes; larger messages take more while they pass.
const BUFFER: usize = 4 << 10;

#[derive(Deserialize)]
pub(super) struct Hello {
    #[serde(rename = "clientId")]
    client_id: Option<String>,
}

/// `GET /ws`.
pub(super) async fn connect(
    State(app): AppState,
    Query(hello): Query<Hello>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Failure> {
    let upgrade = upgrade.map_err(|_| Failure::Status(StatusCode::BAD_REQUEST))?;
    let id = hello.client_id.filter(|id| !id.is_empty());
    if id.as_ref().is_some_and(|id| id.len() > MAX_ID) {
        return Err(Failure::bad("clientId is too long"));
    }
    let id = id.unwrap_or_else(|| uuid::Uuid::new_v4().simple().to_string());
    let upgrade = upgrade
        .max_message_size(MAX_MESSAGE)
        .max_frame_size(MAX_MESSAGE)
        .read_buffer_size(BUFFER)
        .write_buffer_size(4 * BUFFER);
    Ok(upgrade.on_upgrade(move |socket| session(app, socket, id)))
}

/// One connection, from the first message to the last.
async fn session(app: Arc<App>, socket: WebSocket, id: String) {
    let client = app.hub.connect(id.clone(), || {
        let status = hub::status_with_sid(app.store.remaining(), &id);
        std::iter::once(status).chain(executing(&app, &id))
    });
    let (mut sender, mut receiver) = socket.split();
    let mut handshake = true;
    loop {
        tokio::select! {
            next = client.outbox.next() => {
                if !deliver(&app, &client, &mut sender, next).await {
                    break;
                }
            }
            received = receiver.next() => match received {
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(message)) => handshake &= !hear(&app, &client, &message, handshake),
            },
        }
    }
    app.hub.disconnect(&client);
}

/// Where the prompt of this client is, if it runs.
fn executing(app: &App, id: &str) -> Option<Outgoing> {
    let running = app.engine.running().filter(|running| running.client_id.as_deref() == Some(id))?;
    running.node.map(|node| hub::executing_now(&node))
}

/// Sends what comes next, and what else waits, in one go; false when the connection is over.
async fn deliver(app: &App, client: &Client, sender: &mut SplitSink<WebSocket, Message>, next: Next) -> bool {
    let waiting = std::iter::once(next).chain(std::iter::from_fn(|| client.outbox.ready()));
    for next in waiting.take(AT_ONCE) {
        let sent = match next {
            Next::Message(message) => sender.feed(message).await,
            Next::Resync => {
                let status = hub::status(app.store.remaining());
                let now = std::iter::once(status).chain(executing(app, &client.id));
                sender.send_all(&mut stream::iter(now.map(|outgoing| Ok(outgoing.message)))).await
            }
            Next::Close => {
                // The other side may be gone already.
                let _ = sender.send(Message::Close(None)).await;
                return false;
            }
        };
        if sent.is_err() {
            return false;
        }
    }
    sender.flush().await.is_ok()
}

/// Takes a message of the client; true if it was JSON. Only features told in the first such message count.
fn hear(app: &App, client: &Client, message: &Message, first: bool) -> bool {
    let Message::Text(text) = message else { return false };
    let Some(message) = ClientMessage::parse(text) else { return false };
    if let (true, ClientMessage::Features(features)) = (first, message) {
        client.set_features(features);
        client.outbox.push(hub::feature_flags(&feature_flags(app)));
    }
    true
}
