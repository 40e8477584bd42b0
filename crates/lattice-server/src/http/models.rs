//! Models: which there are, and what their files tell.

use std::path::Path as FilePath;
use std::time::SystemTime;

use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use super::AppState;
use super::reply::{Failure, Reply, Result, blocking};
use crate::app::App;
use crate::files::{Folder, Preview, inside, preview};

/// Largest header of a safetensors file that is read for its metadata.
const MAX_HEADER: u64 = 1 << 20;

/// Endings of pictures that lie beside models.
const PICTURES: [&str; 5] = ["png", "jpg", "jpeg", "webp", "gif"];

/// Kinds of folders that hold no models.
const NO_MODELS: [&str; 2] = ["configs", "custom_nodes"];

const ABSENT: Failure = Failure::Status(StatusCode::NOT_FOUND);

/// Names that settings files use for some kinds are none of them here.
fn known(app: &App, kind: &str) -> Result<()> {
    if app.host.model_kinds().iter().any(|known| known == kind) { Ok(()) } else { Err(ABSENT) }
}

/// `GET /models`: kinds of models.
pub(super) async fn kinds(State(app): AppState) -> Reply {
    Reply::json(&app.host.model_kinds())
}

/// `GET /models/{folder}`: names of the models of a kind.
pub(super) async fn list(State(app): AppState, Path(kind): Path<String>) -> Result {
    blocking(move || {
        known(&app, &kind)?;
        Ok(Reply::json(&app.host.models(&kind)))
    })
    .await
}

/// `GET /embeddings`: names without endings.
pub(super) async fn embeddings(State(app): AppState) -> Result {
    blocking(move || {
        let names = app.host.models("embeddings");
        let stem = |name: &String| match name.rsplit_once('.') {
            Some((stem, ending)) if !ending.contains('/') => stem.to_owned(),
            _ => name.clone(),
        };
        Ok(Reply::json(&names.iter().map(stem).collect::<Vec<_>>()))
    })
    .await
}

/// `GET /experiment/models`: kinds and their folders.
pub(super) async fn folders(State(app): AppState) -> Result {
    blocking(move || {
        let kinds = app.host.model_kinds();
        let kinds = kinds.iter().filter(|kind| !NO_MODELS.contains(&kind.as_str()));
        let one = |kind: &String| json!({ "name": kind, "folders": paths(&app, kind) });
        Ok(Reply::json(&kinds.map(one).collect::<Json>()))
    })
    .await
}

/// The folders of a kind, absolute.
pub(super) fn paths(app: &App, kind: &str) -> Vec<String> {
    let absolute = |path| std::path::absolute(&path).unwrap_or(path).to_string_lossy().into_owned();
    app.host.model_folders(kind).into_iter().map(absolute).collect()
}

/// `GET /experiment/models/{folder}`: the files of a kind.
pub(super) async fn files(State(app): AppState, Path(kind): Path<String>) -> Result {
    blocking(move || {
        known(&app, &kind)?;
        if NO_MODELS.contains(&kind.as_str()) {
            return Err(ABSENT);
        }
        let folders = app.host.model_folders(&kind);
        let one = |name: String| {
            if name.split('/').any(|part| part.starts_with('.')) {
                return None;
            }
            let found = folders
                .iter()
                .enumerate()
                .find_map(|(index, folder)| Some((index, std::fs::metadata(folder.join(&name)).ok()?)));
            let (index, metadata) = found?;
            Some(json!({
                "name": name,
                "pathIndex": index,
                "modified": since_epoch(metadata.modified()),
                "created": since_epoch(metadata.created().or_else(|_| metadata.modified())),
                "size": metadata.len(),
            }))
        };
        Ok(Reply::json(&app.host.models(&kind).into_iter().filter_map(one).collect::<Json>()))
    })
    .await
}

fn since_epoch(time: std::io::Result<SystemTime>) -> f64 {
    let since = time.ok().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    since.unwrap_or_default().as_secs_f64()
}

/// `GET /experiment/models/preview/{folder}/{pathIndex}/{filename}`: a picture of a model, from a file beside it or
/// from its metadata.
pub(super) async fn picture(
    State(app): AppState,
    Path((kind, index, name)): Path<(String, usize, String)>,
) -> Result<Response> {
    let _permit = app.files.pictures.acquire().await.map_err(Failure::internal)?;
    let host = app.clone();
    blocking(move || {
        known(&host, &kind)?;
        let folder = host.host.model_folders(&kind).into_iter().nth(index).ok_or(ABSENT)?;
        let path = inside(&name).filter(|path| !path.as_os_str().is_empty()).ok_or(ABSENT)?;
        let folder = Folder::open(&folder).map_err(|_| ABSENT)?;
        let found = beside(&folder, &path).or_else(|| thumbnail(&host, &kind, &name)).ok_or(ABSENT)?;
        let made = preview(&found, Preview::Webp { opaque: false }).map_err(|_| ABSENT)?;
        Ok(([(header::CONTENT_TYPE, "image/webp")], made).into_response())
    })
    .await
}

/// The picture file that goes with a model: `model.png`, `model.preview.png`.
fn beside(folder: &Folder, model: &FilePath) -> Option<Vec<u8>> {
    let endings = PICTURES.iter().flat_map(|ending| [(*ending).to_owned(), format!("preview.{ending}")]);
    endings.map(|ending| model.with_extension(ending)).find_map(|path| folder.read(&path).ok())
}

/// The picture in a model's metadata, a data URL.
fn thumbnail(app: &App, kind: &str, name: &str) -> Option<Vec<u8>> {
    use base64::Engine;
    let metadata = metadata(app, kind, name)?;
    let url = metadata.get("modelspec.thumbnail")?.as_str()?;
    let (_, encoded) = url.strip_prefix("data:image/")?.split_once(";base64,")?;
    base64::engine::general_purpose::STANDARD.decode(encoded).ok()
}

#[derive(Deserialize)]
pub(super) struct Named {
    filename: Option<String>,
}

/// `GET /view_metadata/{folder}?filename=...`: the metadata of a safetensors file.
pub(super) async fn view_metadata(
    State(app): AppState,
    Path(kind): Path<String>,
    Query(named): Query<Named>,
) -> Result {
    blocking(move || {
        let name = named.filename.ok_or(ABSENT)?;
        known(&app, &kind)?;
        Ok(Reply::json(&metadata(&app, &kind, &name).ok_or(ABSENT)?))
    })
    .await
}

/// `__metadata__` of a model that is listed.
fn metadata(app: &App, kind: &str, name: &str) -> Option<Map<String, Json>> {
    if !name.ends_with(".safetensors") || !app.host.models(kind).iter().any(|listed| listed == name) {
        return None;
    }
    let mut file = app.host.open_model(kind, name)?;
    let mut length = [0; 8];
    file.read_exact(&mut length).ok()?;
    let length = Some(u64::from_le_bytes(length)).filter(|length| *length <= MAX_HEADER)?;
    let mut text = vec![0; usize::try_from(length).ok()?];
    file.read_exact(&mut text).ok()?;
    let mut document: Map<String, Json> = serde_json::from_slice(&text).ok()?;
    match document.shift_remove("__metadata__")? {
        Json::Object(metadata) => Some(metadata),
        _ => None,
    }
}
