//! `/internal`: what the front end asks for its own use.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::json;

use super::AppState;
use super::body::Content;
use super::models::paths;
use super::prompt::MAX_ID;
use super::reply::{Failure, Reply, Result, blocking};
use crate::files::{Root, seconds};

/// `GET /internal/logs`: the last lines as one text.
pub(super) async fn logs(State(app): AppState) -> Reply {
    let lines: Vec<String> =
        app.logs.lines().iter().map(|line| format!("{} - {}", line.time, line.text)).collect();
    Reply::json(&lines.concat())
}

/// `GET /internal/logs/raw`: the last lines.
pub(super) async fn raw_logs(State(app): AppState) -> Reply {
    Reply::json(&json!({ "entries": app.logs.lines(), "size": { "cols": 80, "rows": 24 } }))
}

#[derive(Deserialize)]
struct Subscription {
    #[serde(rename = "clientId")]
    client_id: String,
    enabled: bool,
}

/// `PATCH /internal/logs/subscribe`: new lines are sent to a client's socket, or no longer.
pub(super) async fn subscribe(State(app): AppState, content: Content) -> Result {
    let Subscription { client_id, enabled } = content.json()?;
    if client_id.len() > MAX_ID {
        return Err(Failure::bad("clientId is too long"));
    }
    if enabled && !app.hub.is_connected(&client_id) {
        // Who is not there would be forgotten with the next line.
        return Ok(Reply::Done);
    }
    app.logs.subscribe(client_id, enabled);
    Ok(Reply::Done)
}

/// `GET /internal/folder_paths`: kinds of models and their folders.
pub(super) async fn folder_paths(State(app): AppState) -> Result {
    blocking(move || {
        let kinds = app.host.model_kinds();
        Ok(Reply::json(&kinds.iter().map(|kind| (kind, paths(&app, kind))).collect::<IndexMap<_, _>>()))
    })
    .await
}

/// `GET /internal/files/{root}`: names of the files directly in a root, newest first.
pub(super) async fn files(State(app): AppState, Path(root): Path<String>) -> Result {
    blocking(move || {
        let unknown = || Failure::Json(StatusCode::BAD_REQUEST, json!({ "error": "Invalid directory type" }));
        let root = Root::from_name(&root).ok_or_else(unknown)?;
        let mut entries = app.files.root(root)?.walk(false)?;
        entries.retain(|entry| !entry.is_folder);
        entries.sort_by(|a, b| {
            let modified = |entry: &crate::files::Entry| seconds(entry.metadata.modified());
            modified(b).total_cmp(&modified(a))
        });
        Ok(Reply::json(&entries.iter().map(|entry| &entry.path).collect::<Vec<_>>()))
    })
    .await
}
