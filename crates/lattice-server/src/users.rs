//! Who uses the server: one user, or several that clients tell apart by a header.

use std::path::Path;

use axum::http::HeaderMap;
use parking_lot::Mutex;
use serde_json::{Map, Value as Json};

use crate::files::{FileError, Files, Folder};

/// The user there is when there is only one.
const DEFAULT: &str = "default";

/// Names of the users by their ids.
const USERS_FILE: &str = "users.json";

/// A user's settings.
const SETTINGS_FILE: &str = "comfy.settings.json";

/// Most users.
const MAX_USERS: usize = 10_000;

/// Why users or their settings cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UserError {
    #[error("Duplicate username.")]
    Duplicate,
    #[error("a user needs a name")]
    Nameless,
    #[error("there are too many users")]
    TooMany,
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{file} does not hold a JSON object")]
    Broken { file: &'static str },
}

type Result<T> = std::result::Result<T, UserError>;

/// The users.
pub(crate) struct Users {
    several: bool,
    /// Held while the list of users or settings are changed.
    changing: Mutex<()>,
}

impl Users {
    pub(crate) fn new(several: bool) -> Self {
        Self { several, changing: Mutex::default() }
    }

    /// Whether clients say who they are.
    pub(crate) fn several(&self) -> bool {
        self.several
    }

    /// The id of the user who asks; None if the request names none that is known.
    pub(crate) fn of(&self, files: &Files, request: &HeaderMap) -> Option<String> {
        if !self.several {
            return Some(DEFAULT.to_owned());
        }
        let id = request.get("comfy-user")?.to_str().ok()?;
        Self::all(files).ok()?.contains_key(id).then(|| id.to_owned())
    }

    /// Names by ids.
    pub(crate) fn all(files: &Files) -> Result<Map<String, Json>> {
        object(&Folder::make(files.users())?, USERS_FILE)
    }

    /// Adds a user and returns its id.
    pub(crate) fn add(&self, files: &Files, name: &str) -> Result<String> {
        let name = name.trim();
        if name.is_empty() || name.len() > 128 {
            return Err(UserError::Nameless);
        }
        let _lock = self.changing.lock();
        let mut users = Self::all(files)?;
        if users.values().any(|known| known.as_str() == Some(name)) {
            return Err(UserError::Duplicate);
        }
        if users.len() >= MAX_USERS {
            return Err(UserError::TooMany);
        }
        let safe = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '-' };
        let id = format!("{}_{}", name.chars().map(safe).collect::<String>(), uuid::Uuid::new_v4());
        users.insert(id.clone(), name.into());
        write(&Folder::make(files.users())?, USERS_FILE, &users)?;
        Ok(id)
    }

    /// The folder of a user, if it is there.
    pub(crate) fn folder(files: &Files, user: &str) -> std::result::Result<Folder, FileError> {
        Folder::open(files.users())?.below(Path::new(user))
    }

    /// The folder of a user, made if it is not there.
    pub(crate) fn make_folder(files: &Files, user: &str) -> std::result::Result<Folder, FileError> {
        Folder::make(files.users())?.make_below(Path::new(user))
    }

    /// A user's settings.
    pub(crate) fn settings(files: &Files, user: &str) -> Result<Map<String, Json>> {
        match Self::folder(files, user) {
            Ok(folder) => object(&folder, SETTINGS_FILE),
            Err(FileError::Absent) => Ok(Map::new()),
            Err(e) => Err(e.into()),
        }
    }

    /// Sets some of a user's settings.
    pub(crate) fn set(&self, files: &Files, user: &str, changed: Map<String, Json>) -> Result<()> {
        let _lock = self.changing.lock();
        let folder = Self::make_folder(files, user)?;
        let mut settings = object(&folder, SETTINGS_FILE)?;
        settings.extend(changed);
        write(&folder, SETTINGS_FILE, &settings)
    }
}

/// The object in a file; an empty one if there is no file. A file that holds something else is an error: it must not
/// be lost by being written over.
fn object(folder: &Folder, file: &'static str) -> Result<Map<String, Json>> {
    let text = match folder.read(Path::new(file)) {
        Ok(text) => text,
        Err(FileError::Absent) => return Ok(Map::new()),
        Err(e) => return Err(e.into()),
    };
    serde_json::from_slice(&text).map_err(|_| UserError::Broken { file })
}

fn write(folder: &Folder, file: &str, object: &Map<String, Json>) -> Result<()> {
    let mut text = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, format);
    // An object with text keys can always be written to memory.
    serde::Serialize::serialize(object, &mut serializer)
        .map_err(|e| FileError::System(std::io::Error::other(e)))?;
    Ok(folder.write(Path::new(file), &text)?)
}
