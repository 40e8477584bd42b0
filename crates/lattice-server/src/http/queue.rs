//! `/queue`.

use axum::extract::State;
use serde_json::{Value as Json, json};

use super::AppState;
use super::body::Content;
use super::prompt::{id_text, truthy};
use super::reply::{Failure, Reply, Result, blocking};
use crate::record;

/// `GET /queue`: what runs and what waits, in the order in which it will run.
pub(super) async fn list(State(app): AppState) -> Result {
    blocking(move || {
        let (running, waiting) = app.store.queue()?;
        let items = |items: &[crate::store::QueueItem]| {
            items.iter().map(|item| json!(record::item(item))).collect::<Json>()
        };
        Ok(Reply::json(&json!({ "queue_running": items(&running), "queue_pending": items(&waiting) })))
    })
    .await
}

/// `POST /queue`: drops prompts that wait.
pub(super) async fn change(State(app): AppState, content: Content) -> Result {
    let request: Json = content.json()?;
    blocking(move || {
        if request.get("clear").is_some_and(truthy) {
            app.store.clear_waiting()?;
        }
        if let Some(ids) = ids_to_delete(&request)? {
            app.store.drop_waiting(ids)?;
        }
        Ok(Reply::Done)
    })
    .await
}

/// The ids of `{"delete": [...]}`.
pub(super) fn ids_to_delete(request: &Json) -> Result<Option<Vec<String>>> {
    match request.get("delete") {
        None | Some(Json::Null) => Ok(None),
        Some(Json::Array(ids)) => Ok(Some(ids.iter().filter_map(id_text).collect())),
        Some(_) => Err(Failure::bad("delete must be a list of prompt ids")),
    }
}
