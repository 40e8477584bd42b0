//! `/interrupt` and `/free`.

use axum::extract::State;
use serde_json::Value as Json;

use super::AppState;
use super::body::Content;
use super::prompt::{id_text, truthy};
use super::reply::{Reply, Result};

/// `POST /interrupt`: ends the running prompt, or only that of the given id. A body that says nothing of an id is none.
pub(super) async fn interrupt(State(app): AppState, content: Content) -> Reply {
    let request = content.json::<Json>().unwrap_or_default();
    let prompt_id = request.get("prompt_id").filter(|id| truthy(id));
    app.engine.interrupt(prompt_id.map(|id| id_text(id).unwrap_or_default()).as_deref());
    Reply::Done
}

/// `POST /free`: lets go of models or of all that is stored, between prompts.
pub(super) async fn free(State(app): AppState, content: Content) -> Result {
    let request: Json = content.json()?;
    let wants = |name: &str| request.get(name).is_some_and(truthy);
    let (unload_models, free_memory) = (wants("unload_models"), wants("free_memory"));
    if unload_models || free_memory {
        app.engine.free(unload_models, free_memory);
    }
    Ok(Reply::Done)
}
