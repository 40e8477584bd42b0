//! `/userdata`: the files that front ends keep for their users.

use std::path::PathBuf;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use cap_std::fs::Metadata;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::AppState;
use super::body::Content;
use super::reply::{Failure, Reply, Result, blocking};
use crate::app::App;
use crate::files::{Disposition, Entry, FileAnswer, FileError, Folder, inside, seconds};
use crate::users::Users;

impl From<FileError> for Failure {
    fn from(e: FileError) -> Self {
        match e {
            FileError::Absent => Self::Status(StatusCode::NOT_FOUND),
            FileError::Outside => Self::Status(StatusCode::FORBIDDEN),
            FileError::NoFile | FileError::TooMany => Self::bad(e),
            FileError::System(e) => Self::internal(e),
        }
    }
}

fn text(status: StatusCode, text: &str) -> Failure {
    Failure::Text(status, text.to_owned())
}

/// The id of who asks.
fn user(app: &App, headers: &HeaderMap) -> Result<String> {
    let unknown = || text(StatusCode::FORBIDDEN, "Invalid user specified in request");
    app.users.of(&app.files, headers).ok_or_else(unknown)
}

/// A path below the user's folder that is not that folder itself.
fn below(path: &str) -> Result<PathBuf> {
    inside(path).filter(|path| !path.as_os_str().is_empty()).ok_or(Failure::Status(StatusCode::FORBIDDEN))
}

fn slashes(path: &std::path::Path) -> String {
    let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
    parts.join("/")
}

/// What is told of a file.
fn described(path: &str, metadata: &Metadata) -> Json {
    json!({
        "path": path,
        "size": metadata.len(),
        "modified": seconds(metadata.modified()),
        "created": seconds(metadata.created().or_else(|_| metadata.modified())),
    })
}

/// An option that is on when it says so.
fn on(option: Option<&String>) -> bool {
    option.is_some_and(|text| text.eq_ignore_ascii_case("true"))
}

#[derive(Deserialize)]
pub(super) struct Listing {
    dir: Option<String>,
    recurse: Option<String>,
    full_info: Option<String>,
    split: Option<String>,
}

/// `GET /userdata?dir=D`: files of a folder.
pub(super) async fn list(State(app): AppState, Query(what): Query<Listing>, headers: HeaderMap) -> Result {
    blocking(move || {
        let user = user(&app, &headers)?;
        let dir = what.dir.as_deref().filter(|dir| !dir.is_empty());
        let dir = dir.ok_or_else(|| text(StatusCode::BAD_REQUEST, "Directory not provided"))?;
        let path = inside(dir).ok_or_else(|| text(StatusCode::FORBIDDEN, "Invalid directory"))?;
        let folder = Users::folder(&app.files, &user).and_then(|folder| folder.below(&path));
        let folder = folder.map_err(|e| match e {
            FileError::Outside => text(StatusCode::FORBIDDEN, "Invalid directory"),
            FileError::System(e) => Failure::internal(e),
            _ => text(StatusCode::NOT_FOUND, "Directory not found"),
        })?;
        let one = |entry: &Entry| {
            if on(what.full_info.as_ref()) {
                return described(&entry.path, &entry.metadata);
            }
            if on(what.split.as_ref()) {
                let parts = std::iter::once(entry.path.as_str()).chain(entry.path.split('/'));
                return parts.collect();
            }
            Json::from(entry.path.as_str())
        };
        let entries = folder.walk(on(what.recurse.as_ref()))?;
        Ok(Reply::json(&entries.iter().filter(|entry| !entry.is_folder).map(one).collect::<Json>()))
    })
    .await
}

#[derive(Deserialize)]
pub(super) struct Tree {
    path: Option<String>,
}

/// `GET /v2/userdata?path=P`: folders and files below a folder.
pub(super) async fn tree(State(app): AppState, Query(what): Query<Tree>, headers: HeaderMap) -> Result {
    blocking(move || {
        let user = user(&app, &headers)?;
        let invalid = || text(StatusCode::BAD_REQUEST, "Invalid path requested");
        let path = inside(what.path.as_deref().unwrap_or_default()).ok_or_else(invalid)?;
        let root = match Users::folder(&app.files, &user) {
            Ok(root) => root,
            Err(FileError::Absent) => return Ok(Reply::json(&json!([]))),
            Err(e) => return Err(e.into()),
        };
        let found = root
            .metadata(&path)
            .and_then(|metadata| if metadata.is_dir() { root.below(&path) } else { Err(FileError::NoFile) });
        let folder = found.map_err(|e| match e {
            FileError::Absent => text(StatusCode::NOT_FOUND, "Requested path not found"),
            FileError::NoFile => text(StatusCode::BAD_REQUEST, "Requested path is not a directory"),
            FileError::Outside => invalid(),
            e => e.into(),
        })?;
        let mut entries = folder.walk(true)?;
        let name = |entry: &Entry| entry.path.rsplit('/').next().unwrap_or_default().to_owned();
        entries.sort_by_cached_key(|entry| (!entry.is_folder, name(entry).to_lowercase()));
        let one = |entry: &Entry| {
            let path = slashes(&path.join(&entry.path));
            if entry.is_folder {
                return json!({ "name": name(entry), "path": path, "type": "directory" });
            }
            json!({
                "name": name(entry),
                "path": path,
                "type": "file",
                "size": entry.metadata.len(),
                "modified": seconds(entry.metadata.modified()),
            })
        };
        Ok(Reply::json(&entries.iter().map(one).collect::<Json>()))
    })
    .await
}

/// `GET /userdata/{file}`.
pub(super) async fn read(
    State(app): AppState,
    Path(file): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    blocking(move || {
        let user = user(&app, &headers)?;
        let path = below(&file)?;
        let file = Users::folder(&app.files, &user)?.file(&path)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let answer = FileAnswer { file, name, disposition: Disposition::Plain };
        answer.respond(&headers).map_err(Failure::internal)
    })
    .await
}

#[derive(Deserialize)]
pub(super) struct Writing {
    overwrite: Option<String>,
    full_info: Option<String>,
}

impl Writing {
    fn overwrite(&self) -> bool {
        self.overwrite.as_deref() != Some("false")
    }

    /// The path of a file that was written.
    fn answer(&self, root: &Folder, path: &std::path::Path) -> Result {
        let name = slashes(path);
        if !on(self.full_info.as_ref()) {
            return Ok(Reply::json(&name));
        }
        Ok(Reply::json(&described(&name, &root.metadata(path)?)))
    }
}

fn exists() -> Failure {
    text(StatusCode::CONFLICT, "File already exists")
}

/// `POST /userdata/{file}`: writes one.
pub(super) async fn write(
    State(app): AppState,
    Path(file): Path<String>,
    Query(how): Query<Writing>,
    headers: HeaderMap,
    content: Content,
) -> Result {
    blocking(move || {
        let user = user(&app, &headers)?;
        let path = below(&file)?;
        let root = Users::make_folder(&app.files, &user)?;
        let _lock = app.files.naming.lock();
        if !how.overwrite() && root.exists(&path) {
            return Err(exists());
        }
        root.make_below(path.parent().unwrap_or(std::path::Path::new("")))?;
        root.write(&path, &content.0)?;
        how.answer(&root, &path)
    })
    .await
}

/// `DELETE /userdata/{file}`.
pub(super) async fn delete(
    State(app): AppState,
    Path(file): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    blocking(move || {
        let user = user(&app, &headers)?;
        Users::folder(&app.files, &user)?.remove(&below(&file)?)?;
        Ok(StatusCode::NO_CONTENT.into_response())
    })
    .await
}

/// `POST /userdata/{file}/move/{dest}`.
pub(super) async fn rename(
    State(app): AppState,
    Path((file, dest)): Path<(String, String)>,
    Query(how): Query<Writing>,
    headers: HeaderMap,
) -> Result {
    blocking(move || {
        let user = user(&app, &headers)?;
        let (from, to) = (below(&file)?, below(&dest)?);
        let root = Users::folder(&app.files, &user)?;
        let _lock = app.files.naming.lock();
        root.metadata(&from)?;
        if !how.overwrite() && root.exists(&to) {
            return Err(exists());
        }
        root.make_below(to.parent().unwrap_or(std::path::Path::new("")))?;
        root.rename(&from, &to)?;
        how.answer(&root, &to)
    })
    .await
}
