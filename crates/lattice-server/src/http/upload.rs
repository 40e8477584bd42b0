//! `/upload/image` and `/upload/mask`.

use std::path::Path;
use std::sync::Arc;

use axum::extract::multipart::{Field, MultipartError, MultipartRejection};
use axum::extract::{Multipart, State};
use axum::http::StatusCode;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::AppState;
use super::body::too_large;
use super::reply::{Failure, Reply, Result, blocking};
use crate::app::App;
use crate::files::{FileError, Folder, Root, inside, split_annotation, with_alpha_of};

/// Most fields of a form.
const MAX_FIELDS: usize = 32;

/// Longest text in a form.
const MAX_TEXT: usize = 64 << 10;

/// Names that are tried for a file before giving up.
const MAX_NAMES: usize = 100_000;

/// The fields of an upload.
#[derive(Default)]
struct Form {
    /// Name and content of the file.
    image: Option<(String, Bytes)>,
    overwrite: bool,
    root: Option<String>,
    subfolder: String,
    original_ref: Option<String>,
}

impl From<MultipartError> for Failure {
    fn from(e: MultipartError) -> Self {
        Self::Text(e.status(), e.body_text())
    }
}

impl Form {
    async fn read(app: &App, form: std::result::Result<Multipart, MultipartRejection>) -> Result<Self> {
        let mut form = form.map_err(|e| Failure::bad(e.body_text()))?;
        let mut read = Self::default();
        let limit = app.options.max_upload;
        let mut count = 0;
        while let Some(field) = form.next_field().await.map_err(|e| limited(&e, limit))? {
            count += 1;
            if count > MAX_FIELDS {
                return Err(Failure::bad("the form has too many fields"));
            }
            read.take(field, limit).await?;
        }
        Ok(read)
    }

    async fn take(&mut self, field: Field<'_>, limit: u64) -> Result<()> {
        let name = field.name().unwrap_or_default().to_owned();
        let file_name = field.file_name().map(str::to_owned);
        let content = field.bytes().await.map_err(|e| limited(&e, limit))?;
        if name == "image" {
            let Some(file_name) = file_name else {
                return Err(Failure::bad("the field image must be a file"));
            };
            self.image = Some((file_name, content));
            return Ok(());
        }
        let text = || match std::str::from_utf8(&content) {
            Ok(text) if text.len() <= MAX_TEXT => Ok(text.to_owned()),
            _ => Err(Failure::bad(format!("the field {name:?} is not a text, or too long"))),
        };
        match name.as_str() {
            "overwrite" => self.overwrite = matches!(text()?.as_str(), "true" | "1"),
            "type" => self.root = Some(text()?),
            "subfolder" => self.subfolder = text()?,
            "original_ref" => self.original_ref = Some(text()?),
            _ => {}
        }
        Ok(())
    }
}

fn limited(e: &MultipartError, limit: u64) -> Failure {
    if e.status() == StatusCode::PAYLOAD_TOO_LARGE {
        too_large(limit)
    } else {
        Failure::Text(e.status(), e.body_text())
    }
}

/// `POST /upload/image`.
pub(super) async fn image(
    State(app): AppState,
    form: std::result::Result<Multipart, MultipartRejection>,
) -> Result {
    let _permit = app.files.uploads.acquire().await.map_err(Failure::internal)?;
    let form = Form::read(&app, form).await?;
    let store = app.clone();
    blocking(move || save(&store, &form, |_, content| Ok(Some(content.to_vec())))).await
}

/// `POST /upload/mask`.
pub(super) async fn mask(
    State(app): AppState,
    form: std::result::Result<Multipart, MultipartRejection>,
) -> Result {
    let _permit = app.files.uploads.acquire().await.map_err(Failure::internal)?;
    let form = Form::read(&app, form).await?;
    let store = app.clone();
    blocking(move || {
        let reference =
            form.original_ref.as_deref().ok_or_else(|| Failure::bad("original_ref is missing"))?;
        let reference: Reference = serde_json::from_str(reference)
            .map_err(|e| Failure::bad(format!("original_ref is not valid: {e}")))?;
        save(&store, &form, |app, mask| match reference.read(app) {
            Some(original) => with_alpha_of(&original, mask).map(Some).map_err(Failure::bad),
            // Clients expect no failure when the picture has gone.
            None => Ok(None),
        })
    })
    .await
}

/// The picture that a mask is for.
#[derive(Deserialize)]
struct Reference {
    filename: String,
    #[serde(default)]
    subfolder: String,
    #[serde(default, rename = "type")]
    root: Option<String>,
}

impl Reference {
    fn read(&self, app: &App) -> Option<Vec<u8>> {
        let (name, root) = match split_annotation(&self.filename) {
            Some(named) => named,
            None => (self.filename.as_str(), Root::from_name(self.root.as_deref().unwrap_or("output"))?),
        };
        let path = inside(&self.subfolder)?.join(inside(name)?);
        app.files.root(root).ok()?.read(&path).ok()
    }
}

/// Stores the file of a form: what `content` makes of it, if that is anything. Answers with the name that it has got.
fn save(app: &Arc<App>, form: &Form, content: impl FnOnce(&App, &[u8]) -> Result<Option<Vec<u8>>>) -> Result {
    let Some((name, image)) = form.image.as_ref().filter(|(name, _)| !name.is_empty()) else {
        return Err(Failure::Status(StatusCode::BAD_REQUEST));
    };
    let kind = form.root.as_deref().unwrap_or("input");
    let root =
        Root::from_name(kind).ok_or_else(|| Failure::bad(format!("there is no folder type {kind:?}")))?;
    let outside = || Failure::Status(StatusCode::BAD_REQUEST);
    let folder = inside(&form.subfolder).ok_or_else(outside)?;
    let path = inside(name).filter(|path| path.file_name().is_some()).ok_or_else(outside)?;
    let folder = app.files.root(root).and_then(|root| root.make_below(&folder)).map_err(refused)?;
    // One at a time: between finding a free name and taking it nobody else may take it.
    let _lock = app.files.naming.lock();
    let stored = if form.overwrite {
        Place::Free(path.to_string_lossy().into_owned())
    } else {
        place(&folder, &path, image)?
    };
    let name = match stored {
        Place::Same(name) => name,
        Place::Free(name) => {
            if let Some(content) = content(app, image)? {
                folder.write(Path::new(&name), &content).map_err(refused)?;
            }
            name
        }
    };
    Ok(Reply::json(&json!({ "name": name, "subfolder": form.subfolder, "type": kind })))
}

fn refused(e: FileError) -> Failure {
    match e {
        FileError::System(e) => Failure::internal(e),
        e => Failure::bad(e),
    }
}

/// Where an upload goes.
enum Place {
    /// The same file is there already.
    Same(String),
    Free(String),
}

/// The first of `stem.ext`, `stem (1).ext`, ... that is free or holds the same content.
fn place(folder: &Folder, path: &Path, content: &[u8]) -> Result<Place> {
    let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.map(|parent| format!("{}/", parent.to_string_lossy())).unwrap_or_default();
    let (stem, extension) =
        (text(path.file_stem()), path.extension().map(|e| format!(".{}", e.to_string_lossy())));
    let extension = extension.unwrap_or_default();
    let hash = Sha256::digest(content);
    for number in 0..MAX_NAMES {
        let name = match number {
            0 => format!("{parent}{stem}{extension}"),
            _ => format!("{parent}{stem} ({number}){extension}"),
        };
        if !folder.exists(Path::new(&name)) {
            return Ok(Place::Free(name));
        }
        let same = folder.metadata(Path::new(&name)).is_ok_and(|there| there.len() == content.len() as u64)
            && folder.read(Path::new(&name)).is_ok_and(|there| Sha256::digest(there) == hash);
        if same {
            return Ok(Place::Same(name));
        }
    }
    Err(Failure::bad("there are too many files of that name"))
}
