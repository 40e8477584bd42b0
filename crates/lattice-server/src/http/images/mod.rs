//! `/v1`: pictures for programs, in the shape of OpenAI's images API.

mod answer;
mod describe;
mod error;
mod request;
mod run;

use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde_json::{Value as Json, json};

use self::answer::Place;
use self::describe::{ApiProblem, ImageAnswer, ImageRequest, Model, ModelList};
pub(super) use self::error::ApiError;
use self::request::Request;
use self::run::Run;
use super::AppState;
use super::body::Content;
use super::reply::Reply;
use crate::app::App;
use crate::files::FileError;
use crate::template::{TemplateError, Templates};
use crate::users::Users;

type Result<T> = std::result::Result<T, ApiError>;

/// Whether a path is one of these routes, whose clients expect errors in the form of OpenAI's API.
pub(in crate::http) fn answers(path: &str) -> bool {
    ["/v1/images/", "/v1/models"].iter().any(|prefix| path.starts_with(prefix))
}

/// Pictures for programs, in the shape of OpenAI's images API
#[utoipa::path(
    post, path = "/v1/images/generations", tag = "images", security(("key" = ["queue"])),
    request_body = ImageRequest,
    responses(
        (status = 200, description = "The pictures, or with `stream` events without end until they are done", content(
            (ImageAnswer = "application/json"),
            (String = "text/event-stream"),
        )),
        (status = 400, description = "The request makes no sense", body = ApiProblem),
        (status = 404, description = "There is no such template", body = ApiProblem),
        (status = 500, description = "The workflow failed", body = ApiProblem),
        (status = 503, description = "The server is stopping", body = ApiProblem),
    ),
)]
pub(in crate::http) async fn generate(
    State(app): AppState,
    headers: HeaderMap,
    content: std::result::Result<Content, super::reply::Failure>,
) -> Response {
    let answer = async {
        let body: Json = content?.json()?;
        let request = Request::parse(body)?;
        let place = Place::of(&app, &headers);
        let stream = request.stream;
        let run = Run::start(app, request, templates_of(headers)).await?;
        Ok::<_, ApiError>(if stream { run.stream() } else { run.whole(&place).await?.into_response() })
    };
    answer.await.unwrap_or_else(IntoResponse::into_response)
}

/// The templates of `/v1/images/generations`
#[utoipa::path(
    get, path = "/v1/models", tag = "images", security(("key" = ["read"])),
    responses((status = 200, description = "Their names, in the shape of OpenAI's API", body = ModelList)),
)]
pub(in crate::http) async fn models(State(app): AppState, headers: HeaderMap) -> Result<Reply> {
    let names = blocking(move || Ok(templates_of(headers)(&app)?.names()?)).await?;
    let models: Vec<Json> = names.iter().map(|name| model(name)).collect();
    Ok(Reply::json(&json!({ "object": "list", "data": models })))
}

/// One of the templates of `/v1/images/generations`
#[utoipa::path(
    get, path = "/v1/models/{*model}", tag = "images", security(("key" = ["read"])),
    params(("model" = String, Path, description = "Its name")),
    responses(
        (status = 200, description = "It is there", body = Model),
        (status = 404, description = "It is not", body = ApiProblem),
    ),
)]
pub(in crate::http) async fn one_model(
    State(app): AppState,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Reply> {
    blocking(move || {
        templates_of(headers)(&app)?.get(&name)?;
        Ok(Reply::json(&model(&name)))
    })
    .await
}

fn model(name: &str) -> Json {
    json!({ "id": name, "object": "model", "created": 0, "owned_by": "lattice" })
}

/// The templates of who asks.
fn templates_of(headers: HeaderMap) -> impl FnOnce(&App) -> Result<Templates> + Send + 'static {
    move |app| {
        let user = app.users.of(&app.files, &headers);
        let user = user.ok_or_else(|| ApiError::refused("The header comfy-user names no user.", None))?;
        let folder = match Users::folder(&app.files, &user) {
            Err(FileError::Absent) => None,
            folder => Some(folder.map_err(TemplateError::from)?),
        };
        Ok(Templates::open(folder.as_ref(), app.host.image_template())?)
    }
}

/// Seconds since the epoch.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Runs what waits for the disk or takes long beside the threads that answer requests.
async fn blocking<T: Send + 'static>(f: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(f).await.unwrap_or_else(|e| Err(ApiError::internal(e)))
}
