//! `/v1/queue`: what waits and runs, and changing that.

use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value as Json, json};
use utoipa::ToSchema;

use super::Problem;
use crate::app::App;
use crate::http::AppState;
use crate::http::body::Content;
use crate::http::prompt::{accept, extra_data, priority};
use crate::http::reply::{Failure, Reply, Result, blocking};
use crate::store::{Edit, Graph, Place, QueueEntry, QueueOrder, QueueState, StoreError};

/// How the queue is set.
#[derive(Serialize, ToSchema)]
pub(super) struct QueueSettings {
    /// No prompt is started.
    paused: bool,
    /// Which prompt runs next.
    order: QueueOrder,
}

fn settings(app: &App) -> Result {
    let (paused, order) = app.store.queue_settings()?;
    Ok(Reply::json(&QueueSettings { paused, order }))
}

/// What runs and what waits, in the order in which it will run
#[utoipa::path(
    get, path = "/v1/queue", tag = "queue", security(("key" = ["read"])),
    responses((status = 200, description = "The queue, without the graphs", body = QueueState)),
)]
pub(super) async fn queue_state(State(app): AppState) -> Result {
    blocking(move || Ok(Reply::json(&app.store.state()?))).await
}

/// Starts no further prompt
///
/// The running one goes on; new ones are taken and wait. This outlasts the end of the server.
#[utoipa::path(
    post, path = "/v1/queue/pause", tag = "queue", security(("key" = ["admin"])),
    responses((status = 200, description = "How the queue is set now", body = QueueSettings)),
)]
pub(super) async fn queue_pause(State(app): AppState) -> Result {
    pause(app, true).await
}

/// Starts prompts again
#[utoipa::path(
    post, path = "/v1/queue/resume", tag = "queue", security(("key" = ["admin"])),
    responses((status = 200, description = "How the queue is set now", body = QueueSettings)),
)]
pub(super) async fn queue_resume(State(app): AppState) -> Result {
    pause(app, false).await
}

async fn pause(app: std::sync::Arc<App>, paused: bool) -> Result {
    blocking(move || {
        app.store.pause(paused)?;
        settings(&app)
    })
    .await
}

/// A choice of order.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OrderWish {
    /// Which prompt is to run next.
    order: QueueOrder,
}

/// Chooses which of the prompts of the highest priority runs next
///
/// This outlasts the end of the server.
#[utoipa::path(
    put, path = "/v1/queue/order", tag = "queue", security(("key" = ["admin"])), request_body = OrderWish,
    responses(
        (status = 200, description = "How the queue is set now", body = QueueSettings),
        (status = 400, description = "There is no such order", body = Problem),
    ),
)]
pub(super) async fn queue_order(State(app): AppState, content: Content) -> Result {
    let OrderWish { order } = content.json()?;
    blocking(move || {
        app.store.set_order(order)?;
        settings(&app)
    })
    .await
}

/// A queued prompt with its graph.
#[derive(Serialize, ToSchema)]
pub(super) struct QueuedPrompt<'a> {
    prompt_id: &'a str,
    /// Among prompts of one priority, lower ones run first.
    number: f64,
    /// Prompts of higher priority run first.
    priority: i32,
    /// The client that queued it and gets its events.
    #[schema(required)]
    client_id: Option<&'a str>,
    /// The graph, after validation.
    #[schema(value_type = Object)]
    prompt: &'a RawValue,
    /// What came with it, such as the workflow to put into pictures.
    #[schema(value_type = Object)]
    extra_data: &'a RawValue,
    /// Output nodes that are executed.
    outputs: &'a [String],
}

/// One prompt that waits or runs
#[utoipa::path(
    get, path = "/v1/queue/prompts/{prompt_id}", tag = "queue", security(("key" = ["read"])),
    params(("prompt_id" = String, Path, description = "Its id")),
    responses(
        (status = 200, description = "The prompt", body = QueuedPrompt),
        (status = 404, description = "It is not in the queue", body = Problem),
    ),
)]
pub(super) async fn queued_prompt(State(app): AppState, Path(prompt_id): Path<String>) -> Result {
    blocking(move || {
        let item = app.store.queued(&prompt_id)?.ok_or(StoreError::NotQueued(prompt_id))?;
        Ok(Reply::json(&QueuedPrompt {
            prompt_id: &item.prompt_id,
            number: item.number,
            priority: item.priority,
            client_id: item.client_id.as_deref(),
            prompt: &item.prompt,
            extra_data: &item.extra_data,
            outputs: &item.outputs,
        }))
    })
    .await
}

/// What to change about a waiting prompt; what is left out stays.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what is read field by field, as `POST /prompt` reads it")]
pub(super) struct PromptEdit {
    /// Prompts of higher priority run first.
    priority: Option<i32>,
    /// Another graph, in the API format; validated as `POST /prompt` does.
    #[schema(value_type = Option<Object>)]
    prompt: Option<Json>,
    /// Goes with another graph: what comes with it, in place of what came with the first.
    #[schema(value_type = Option<Object>)]
    extra_data: Option<Json>,
    /// Goes with another graph: only these output nodes are executed.
    partial_execution_targets: Option<Vec<String>>,
}

/// A prompt that was changed.
#[derive(Serialize, ToSchema)]
pub(super) struct EditedPrompt {
    #[serde(flatten)]
    entry: QueueEntry,
    /// Errors of output nodes that are left out because of them, as `POST /prompt` answers.
    #[schema(value_type = Object)]
    node_errors: Json,
}

/// Changes the priority or the graph of a prompt before it runs
///
/// It keeps its id, its client and its number.
#[utoipa::path(
    patch, path = "/v1/queue/prompts/{prompt_id}", tag = "queue", security(("key" = ["queue"])),
    params(("prompt_id" = String, Path, description = "Its id")), request_body = PromptEdit,
    responses(
        (status = 200, description = "The prompt now", body = EditedPrompt),
        (status = 400, description = "The graph is refused, or the request makes no sense", body = Problem),
        (status = 404, description = "It is not in the queue", body = Problem),
        (status = 409, description = "It runs already", body = Problem),
    ),
)]
pub(super) async fn edit_prompt(
    State(app): AppState,
    Path(prompt_id): Path<String>,
    content: Content,
) -> Result {
    let request: Json = content.json()?;
    blocking(move || edit(&app, prompt_id, request)).await
}

fn edit(app: &App, prompt_id: String, mut request: Json) -> Result {
    let fields = request.as_object().ok_or_else(|| Failure::bad("the body must be an object"))?;
    let known = ["priority", "prompt", "extra_data", "partial_execution_targets"];
    if let Some(unknown) = fields.keys().find(|field| !known.contains(&field.as_str())) {
        return Err(Failure::bad(format!("{unknown} cannot be changed")));
    }
    let has_graph = fields.contains_key("prompt");
    if !has_graph && fields.keys().any(|field| field != "priority") {
        return Err(Failure::bad("extra_data and partial_execution_targets go with a prompt"));
    }
    let mut edit = Edit { priority: priority(&request)?, graph: None };
    let mut node_errors = json!({});
    if has_graph {
        let client_id = app.store.queued(&prompt_id)?.and_then(|item| item.client_id);
        let mut extra_data = extra_data(&mut request)?;
        if let Some(fields) = &mut extra_data {
            // Whose prompt it is does not change.
            fields.shift_remove("client_id");
            fields.extend(client_id.map(|id| ("client_id".to_owned(), Json::from(id))));
        }
        let accepted = accept(app, &mut request)?;
        node_errors = json!(accepted.node_errors);
        edit.graph = Some(Graph {
            prompt: to_raw_value(&accepted.prompt).map_err(Failure::internal)?,
            outputs: accepted.outputs,
            extra_data: extra_data.as_ref().map(to_raw_value).transpose().map_err(Failure::internal)?,
        });
    }
    let entry = app.store.edit_waiting(prompt_id, edit)?;
    Ok(Reply::json(&EditedPrompt { entry, node_errors }))
}

/// Drops a prompt that waits
#[utoipa::path(
    delete, path = "/v1/queue/prompts/{prompt_id}", tag = "queue", security(("key" = ["queue"])),
    params(("prompt_id" = String, Path, description = "Its id")),
    responses(
        (status = 200, description = "It is gone"),
        (status = 404, description = "It is not in the queue", body = Problem),
        (status = 409, description = "It runs already: interrupt it", body = Problem),
    ),
)]
pub(super) async fn drop_prompt(State(app): AppState, Path(prompt_id): Path<String>) -> Result {
    blocking(move || {
        app.store.remove_waiting(prompt_id)?;
        Ok(Reply::Done)
    })
    .await
}

/// Where to move a prompt; exactly one of these.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum MoveWish {
    /// To one end of the queue.
    To(End),
    /// Before the waiting prompt of this id.
    Before(String),
    /// After the waiting prompt of this id.
    After(String),
}

/// An end of the queue.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum End {
    /// What runs next.
    Front,
    /// What runs last.
    Back,
}

/// Moves a prompt that waits
///
/// It takes the priority and the number of the prompt that it comes to stand beside. Where clients take turns, this
/// is its place among the prompts of its client.
#[utoipa::path(
    post, path = "/v1/queue/prompts/{prompt_id}/move", tag = "queue", security(("key" = ["queue"])),
    params(("prompt_id" = String, Path, description = "Its id")), request_body = MoveWish,
    responses(
        (status = 200, description = "The prompt now", body = QueueEntry),
        (status = 400, description = "The request makes no sense", body = Problem),
        (status = 404, description = "It, or the prompt to move it beside, is not in the queue", body = Problem),
        (status = 409, description = "It, or the prompt to move it beside, runs already", body = Problem),
    ),
)]
pub(super) async fn move_prompt(
    State(app): AppState,
    Path(prompt_id): Path<String>,
    content: Content,
) -> Result {
    let place = match content.json()? {
        MoveWish::To(End::Front) => Place::Front,
        MoveWish::To(End::Back) => Place::Back,
        MoveWish::Before(other) => Place::Before(other),
        MoveWish::After(other) => Place::After(other),
    };
    blocking(move || Ok(Reply::json(&app.store.move_waiting(prompt_id, place)?))).await
}
