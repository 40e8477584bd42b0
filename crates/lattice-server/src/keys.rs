//! Keys that programs and people show to be let in.
//!
//! A key is 256 random bits, so its SHA-256 is enough to keep: there is nothing to guess.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Name of the keys' file in the user folder.
const FILE: &str = "keys.json";

/// What every key begins with, so that it is known for one where it should not be.
const PREFIX: &str = "lattice-";

/// What the holder of a key may do; each includes those before it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Look at the queue, the history and the results.
    Read,
    /// Queue prompts, upload files, save workflows.
    Queue,
    /// All else: unloading models, others' prompts, the log.
    Admin,
}

/// A key as it is kept.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Key {
    /// What it may do.
    pub scope: Scope,
    /// SHA-256 of the key, in hexadecimal digits.
    hash: String,
}

/// Why keys cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is none of ours.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// There is a key of that name.
    #[error("there is a key named {0} already; revoke it first")]
    NameTaken(String),
    /// There is no key of that name.
    #[error("there is no key named {0}")]
    Unknown(String),
}

/// The keys of a server, by name.
#[derive(Debug, Default)]
pub struct Keys {
    path: PathBuf,
    keys: indexmap::IndexMap<String, Key>,
}

impl Keys {
    /// Those kept in the user folder.
    ///
    /// # Errors
    /// If their file cannot be read.
    pub fn open(user: &Path) -> Result<Self, KeyError> {
        let path = user.join(FILE);
        let keys = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|source| KeyError::Json { path: path.clone(), source })?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => indexmap::IndexMap::new(),
            Err(source) => return Err(KeyError::File { path, source }),
        };
        Ok(Self { path, keys })
    }

    /// Names and keys, in the order they were made.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Key)> {
        self.keys.iter().map(|(name, key)| (name.as_str(), key))
    }

    /// Makes a key and returns it; it cannot be read again later.
    ///
    /// # Errors
    /// If the name is taken, or the file cannot be written.
    pub fn create(&mut self, name: &str, scope: Scope) -> Result<String, KeyError> {
        if self.keys.contains_key(name) {
            return Err(KeyError::NameTaken(name.to_owned()));
        }
        let random = || uuid::Uuid::new_v4().simple().to_string();
        let text = format!("{PREFIX}{}{}{}", random(), random(), random());
        self.keys.insert(name.to_owned(), Key { scope, hash: hash(&text) });
        self.write()?;
        Ok(text)
    }

    /// Makes a key worthless.
    ///
    /// # Errors
    /// If there is none of that name, or the file cannot be written.
    pub fn revoke(&mut self, name: &str) -> Result<(), KeyError> {
        self.keys.shift_remove(name).ok_or_else(|| KeyError::Unknown(name.to_owned()))?;
        self.write()
    }

    /// Under a name of its own first, so that a server never reads half of it; readable by the owner only.
    fn write(&self) -> Result<(), KeyError> {
        let failed = |source| KeyError::File { path: self.path.clone(), source };
        let new = self.path.with_extension("new");
        let text = serde_json::to_vec_pretty(&self.keys)
            .map_err(|source| KeyError::Json { path: self.path.clone(), source })?;
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&new).map_err(failed)?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed)?;
        std::fs::rename(&new, &self.path).map_err(failed)
    }
}

fn hash(key: &str) -> String {
    Sha256::digest(key.as_bytes()).iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// Whom the server lets in. Keys made or revoked while it runs count from the next request on.
#[derive(Debug)]
pub(crate) struct Gate {
    user: PathBuf,
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// When the file that they were read from was written.
    written: Option<std::time::SystemTime>,
    by_hash: HashMap<String, Scope>,
}

impl Gate {
    /// With the keys of the user folder.
    pub(crate) fn open(user: &Path) -> Result<Self, KeyError> {
        let gate = Self { user: user.to_owned(), known: RwLock::default() };
        gate.read()?;
        Ok(gate)
    }

    /// Whether anybody can be let in.
    pub(crate) fn has_keys(&self) -> bool {
        !self.known.read().by_hash.is_empty()
    }

    /// What a key allows; None if it is none.
    pub(crate) fn scope(&self, key: &str) -> Option<Scope> {
        if self.written() != self.known.read().written
            && let Err(e) = self.read()
        {
            // Nobody is let in by keys that may have been revoked.
            tracing::error!("{e}");
            return None;
        }
        // The hash is no secret, so comparing it may take as long as it likes.
        self.known.read().by_hash.get(&hash(key)).copied()
    }

    fn written(&self) -> Option<std::time::SystemTime> {
        std::fs::metadata(self.user.join(FILE)).and_then(|file| file.modified()).ok()
    }

    fn read(&self) -> Result<(), KeyError> {
        let written = self.written();
        let keys = Keys::open(&self.user)?;
        let by_hash = keys.keys.into_values().map(|key| (key.hash, key.scope)).collect();
        *self.known.write() = Known { written, by_hash };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_kept_as_hashes_and_can_be_revoked() {
        let user = tempfile::tempdir().unwrap();
        let mut keys = Keys::open(user.path()).unwrap();
        let (a, b) = (keys.create("a", Scope::Read).unwrap(), keys.create("b", Scope::Admin).unwrap());
        assert!(matches!(keys.create("a", Scope::Admin), Err(KeyError::NameTaken(_))));
        let file = std::fs::read_to_string(user.path().join(FILE)).unwrap();
        assert!(!file.contains(&a) && !file.contains(&b));
        let gate = Gate::open(user.path()).unwrap();
        assert_eq!(
            (gate.scope(&a), gate.scope(&b), gate.scope("x")),
            (Some(Scope::Read), Some(Scope::Admin), None)
        );
        keys.revoke("a").unwrap();
        assert!(matches!(keys.revoke("a"), Err(KeyError::Unknown(_))));
        let gate = Gate::open(user.path()).unwrap();
        assert_eq!((gate.scope(&a), gate.scope(&b)), (None, Some(Scope::Admin)));
        assert!(Scope::Read < Scope::Queue && Scope::Queue < Scope::Admin);
    }
}
