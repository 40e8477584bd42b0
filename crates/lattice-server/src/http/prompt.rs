//! `/prompt`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::StatusCode;
use lattice_graph::{Accepted, ErrorBody, Prompt, ValidationFailure, validate};
use serde_json::value::to_raw_value;
use serde_json::{Map, Value as Json, json};

use super::AppState;
use super::body::Content;
use super::reply::{Failure, Reply, Result, blocking};
use crate::app::App;
use crate::record;
use crate::store::{NewPrompt, Number};

/// Longest id of a prompt or a client.
pub(super) const MAX_ID: usize = 512;

/// `GET /prompt`.
pub(super) async fn exec_info(State(app): AppState) -> Reply {
    Reply::json(&json!({ "exec_info": { "queue_remaining": app.store.remaining() } }))
}

/// `POST /prompt`.
pub(super) async fn submit(State(app): AppState, content: Content) -> Result {
    takes_prompts(&app)?;
    blocking(move || queue(&app, &content)).await
}

/// Whether new prompts are taken: a server that is about to end refuses them.
pub(super) fn takes_prompts(app: &App) -> Result<()> {
    if app.stopping.load(Ordering::Relaxed) { Err(Failure::Stopping) } else { Ok(()) }
}

impl From<ValidationFailure> for Failure {
    fn from(failure: ValidationFailure) -> Self {
        Self::Json(StatusCode::BAD_REQUEST, failure.to_json())
    }
}

fn queue(app: &Arc<App>, content: &Content) -> Result {
    let mut request: Json = content.json()?;
    let number = number(&request)?;
    let prepared = prepare(app, &mut request, number);
    if prepared.is_err() && !matches!(number, Number::Given(_)) {
        app.store.skip_number()?;
    }
    let (new, node_errors) = prepared?;
    let prompt_id = new.prompt_id.clone();
    let number = record::number(app.store.enqueue(new)?);
    Ok(Reply::json(&json!({ "prompt_id": prompt_id, "number": number, "node_errors": node_errors })))
}

/// The prompt as it is to be queued, and the errors of the outputs that are left out.
pub(super) fn prepare(app: &App, request: &mut Json, number: Number) -> Result<(NewPrompt, Json)> {
    if request.get("prompt").is_none() {
        return Err(ValidationFailure::from(ErrorBody::no_prompt()).into());
    }
    let prompt_id = match request.get("prompt_id") {
        None | Some(Json::Null) => uuid::Uuid::new_v4().to_string(),
        Some(id) => id_text(id).ok_or_else(|| Failure::bad("prompt_id must be a short text"))?,
    };
    let mut extra_data = extra_data(request)?.unwrap_or_default();
    if let Some(client_id) = request.get("client_id") {
        extra_data.insert("client_id".into(), client_id.clone());
    }
    let priority = priority(request)?.unwrap_or_default();
    let accepted = accept(app, request)?;
    let new = NewPrompt {
        prompt_id,
        number,
        priority,
        client_id: extra_data.get("client_id").and_then(Json::as_str).map(str::to_owned),
        prompt: to_raw_value(&accepted.prompt).map_err(Failure::internal)?,
        extra_data: to_raw_value(&extra_data).map_err(Failure::internal)?,
        outputs: accepted.outputs,
    };
    Ok((new, json!(accepted.node_errors)))
}

/// Validates the graph of a request.
pub(super) fn accept(app: &App, request: &mut Json) -> Result<Accepted> {
    let targets = match request.get("partial_execution_targets") {
        None | Some(Json::Null) => None,
        Some(Json::Array(ids)) => Some(ids.iter().filter_map(id_text).collect::<Vec<_>>()),
        Some(_) => return Err(Failure::bad("partial_execution_targets must be a list of node ids")),
    };
    let prompt = Prompt::parse(request.get_mut("prompt").map(Json::take).unwrap_or_default())?;
    Ok(validate(prompt, &app.registry, &app.extensions, targets.as_deref())?)
}

/// The `extra_data` of a request.
pub(super) fn extra_data(request: &mut Json) -> Result<Option<Map<String, Json>>> {
    match request.get_mut("extra_data").map(Json::take) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::Object(fields)) => Ok(Some(fields)),
        Some(_) => Err(Failure::bad("extra_data must be an object")),
    }
}

/// The priority that a request asks for.
pub(super) fn priority(request: &Json) -> Result<Option<i32>> {
    let Some(priority) = request.get("priority").filter(|priority| !priority.is_null()) else {
        return Ok(None);
    };
    let whole = priority.as_i64().and_then(|priority| i32::try_from(priority).ok());
    whole.map(Some).ok_or_else(|| Failure::bad("priority must be a whole number of 32 bits"))
}

/// The place in the queue that the request asks for.
fn number(request: &Json) -> Result<Number> {
    let Some(number) = request.get("number") else {
        let front = request.get("front").is_some_and(truthy);
        return Ok(if front { Number::Front } else { Number::Next });
    };
    let number = match number {
        Json::Number(number) => number.as_f64(),
        Json::String(text) => text.trim().parse().ok(),
        Json::Bool(yes) => Some(f64::from(u8::from(*yes))),
        _ => None,
    };
    let number = number.filter(|number| number.is_finite());
    number.map(Number::Given).ok_or_else(|| Failure::bad("number must be a number"))
}

/// An id given as text or number, as text.
pub(super) fn id_text(id: &Json) -> Option<String> {
    let text = match id {
        Json::String(text) => text.clone(),
        Json::Number(number) => number.to_string(),
        _ => return None,
    };
    (text.len() <= MAX_ID).then_some(text)
}

/// What Python takes for true.
pub(super) fn truthy(value: &Json) -> bool {
    match value {
        Json::Null => false,
        Json::Bool(yes) => *yes,
        Json::Number(number) => number.as_f64() != Some(0.0),
        Json::String(text) => !text.is_empty(),
        Json::Array(items) => !items.is_empty(),
        Json::Object(fields) => !fields.is_empty(),
    }
}
