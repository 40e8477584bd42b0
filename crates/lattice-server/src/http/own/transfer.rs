//! `/v1/queue/export` and `/v1/queue/import`: a queue as a document, to be taken to another server.

use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::{Asked, Problem};
use crate::app::App;
use crate::http::AppState;
use crate::http::body::Content;
use crate::http::prompt::{prepare, takes_prompts};
use crate::http::reply::{Failure, Reply, Result, blocking};
use crate::store::{Number, QueueItem};

/// The form of the document.
const VERSION: u32 = 1;

/// A queue to be imported elsewhere. Its prompts have the form of the bodies of `POST /prompt`.
#[derive(Serialize, ToSchema)]
pub(super) struct QueueExport<'a> {
    /// The form of this document: 1.
    version: u32,
    /// In the order in which they would have run.
    prompts: Vec<PromptExport<'a>>,
}

/// A prompt of an exported queue.
#[derive(Serialize, ToSchema)]
pub(super) struct PromptExport<'a> {
    prompt_id: &'a str,
    priority: i32,
    /// The graph, after validation.
    #[schema(value_type = Object)]
    prompt: &'a RawValue,
    /// What came with it, the client's id among that.
    #[schema(value_type = Object)]
    extra_data: &'a RawValue,
    /// Output nodes to execute.
    partial_execution_targets: &'a [String],
}

impl<'a> From<&'a QueueItem> for PromptExport<'a> {
    fn from(item: &'a QueueItem) -> Self {
        Self {
            prompt_id: &item.prompt_id,
            priority: item.priority,
            prompt: &item.prompt,
            extra_data: &item.extra_data,
            partial_execution_targets: &item.outputs,
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ExportWish {
    /// The running prompt too, first.
    #[serde(default)]
    running: bool,
}

/// The waiting prompts as a document for import
///
/// It holds all that came with the prompts, secrets of clients included. The queue stays as it is.
#[utoipa::path(
    get, path = "/v1/queue/export", tag = "queue", security(("key" = ["admin"])), params(ExportWish),
    responses((status = 200, description = "The queue", body = QueueExport)),
)]
pub(super) async fn export_queue(State(app): AppState, wish: Asked<ExportWish>) -> Result {
    let Query(wish) = wish.map_err(Failure::bad)?;
    blocking(move || {
        let (running, waiting) = app.store.queue()?;
        let running = running.iter().filter(|_| wish.running);
        let prompts = running.chain(&waiting).map(PromptExport::from).collect();
        Ok(Reply::json(&QueueExport { version: VERSION, prompts }))
    })
    .await
}

/// A queue that was exported.
#[derive(Deserialize, ToSchema)]
pub(super) struct QueueImport {
    /// The form of the document: 1.
    version: u32,
    /// Prompts as `POST /prompt` takes them; their numbers are not heeded.
    #[schema(value_type = Vec<Object>)]
    prompts: Vec<Box<RawValue>>,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ImportWish {
    /// Import the others when some are refused, instead of none.
    #[serde(default)]
    skip_invalid: bool,
}

/// What has been imported.
#[derive(Serialize, ToSchema)]
pub(super) struct Imported {
    imported: Vec<ImportedPrompt>,
    /// Prompts that were left out.
    #[schema(value_type = Vec<Object>)]
    refused: Vec<Json>,
}

/// A prompt that has been imported.
#[derive(Serialize, ToSchema)]
pub(super) struct ImportedPrompt {
    prompt_id: String,
    /// The id that it had, if that was taken here.
    #[serde(skip_serializing_if = "Option::is_none")]
    was: Option<String>,
    /// Errors of output nodes that are left out because of them, as `POST /prompt` answers.
    #[schema(value_type = Object)]
    node_errors: Json,
}

/// Queues the prompts of an exported queue, after those that wait already
///
/// Each is validated as `POST /prompt` does; if one is refused, none is queued. Prompts keep their ids where these are
/// free.
#[utoipa::path(
    post, path = "/v1/queue/import", tag = "queue", security(("key" = ["queue"])), params(ImportWish),
    request_body = QueueImport,
    responses(
        (status = 200, description = "What is queued now", body = Imported),
        (status = 400, description = "Prompts are refused; `refused` tells which", body = Problem),
        (status = 503, description = "The server is stopping", body = Problem),
    ),
)]
pub(super) async fn import_queue(State(app): AppState, wish: Asked<ImportWish>, content: Content) -> Result {
    takes_prompts(&app)?;
    let Query(wish) = wish.map_err(Failure::bad)?;
    let document: QueueImport = content.json()?;
    if document.version != VERSION {
        let reason = format!("the document has version {}; this server knows {VERSION}", document.version);
        return Err(Failure::bad(reason));
    }
    blocking(move || import(&app, document.prompts, wish.skip_invalid)).await
}

fn import(app: &App, prompts: Vec<Box<RawValue>>, skip_invalid: bool) -> Result {
    let (mut accepted, mut errors, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    for (index, prompt) in prompts.into_iter().enumerate() {
        let mut request: Json = serde_json::from_str(prompt.get()).map_err(Failure::bad)?;
        let id = request.get("prompt_id").cloned();
        match prepare(app, &mut request, Number::Next) {
            Ok((new, node_errors)) => {
                accepted.push(new);
                errors.push(node_errors);
            }
            Err(Failure::Json(_, mut reason)) => {
                reason["index"] = index.into();
                reason["prompt_id"] = id.unwrap_or_default();
                refused.push(reason);
            }
            Err(other) => return Err(other),
        }
    }
    if !refused.is_empty() && !skip_invalid {
        let count = refused.len();
        let mut reason = Failure::bad(format!("{count} prompts are refused, so none is imported"));
        if let Failure::Json(StatusCode::BAD_REQUEST, document) = &mut reason {
            document["refused"] = refused.into();
        }
        return Err(reason);
    }
    let were: Vec<String> = accepted.iter().map(|new| new.prompt_id.clone()).collect();
    let ids = app.store.enqueue_all(accepted, || uuid::Uuid::new_v4().to_string())?;
    let imported = ids.into_iter().zip(were).zip(errors).map(|((prompt_id, was), node_errors)| {
        let was = Some(was).filter(|was| *was != prompt_id);
        ImportedPrompt { prompt_id, was, node_errors }
    });
    let imported = imported.collect();
    Ok(Reply::json(&Imported { imported, refused }))
}
