//! Opening model files; files that are in use are shared.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use lattice_models::Checkpoint;
use lattice_weights::adapters::AdapterFile;
use lattice_weights::{StateDict, open_any, safetensors};
use parking_lot::Mutex;

use super::{Folders, ModelFile};
use crate::{Error, Result};

/// Opens a model file of any format, or a diffusers folder. Nothing of it is read yet but the list of its tensors.
///
/// # Errors
/// If the file is broken or of an unknown format.
pub fn open(file: &ModelFile) -> Result<StateDict> {
    match file {
        ModelFile::Path(path) => open_any(path).map_err(Error::other),
        ModelFile::Builtin { name, bytes } => {
            safetensors::from_bytes(name, bytes.clone()).map_err(Error::other)
        }
    }
}

/// Checkpoints in use and adapters, by the state of their file.
#[derive(Default)]
pub struct ModelCache {
    checkpoints: Mutex<HashMap<FileState, Weak<Checkpoint>>>,
    /// Kept although nobody uses them: they are mapped, not read, and patched weights are known by their adapters.
    adapters: Mutex<HashMap<FileState, Arc<AdapterFile>>>,
}

/// A file as it is now: written anew, it is another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum FileState {
    Path { path: PathBuf, length: u64, modified: Option<SystemTime> },
    Builtin(String),
}

impl FileState {
    fn of(file: &ModelFile) -> Result<Self> {
        Ok(match file {
            ModelFile::Path(path) => {
                let metadata = std::fs::metadata(path).map_err(Error::file(path))?;
                Self::Path { path: path.clone(), length: metadata.len(), modified: metadata.modified().ok() }
            }
            ModelFile::Builtin { name, .. } => Self::Builtin(name.clone()),
        })
    }
}

impl ModelCache {
    /// Forgets all files. What is in use elsewhere stays there.
    pub fn clear(&self) {
        self.checkpoints.lock().clear();
        self.adapters.lock().clear();
    }

    /// The checkpoint of that name, shared with whoever has it open.
    ///
    /// # Errors
    /// If there is none, or its tensors are those of no known model.
    pub fn checkpoint(&self, folders: &Folders, name: &str) -> Result<Arc<Checkpoint>> {
        let file = folders.find("checkpoints", name)?;
        let state = FileState::of(&file)?;
        let mut open_ones = self.checkpoints.lock();
        if let Some(checkpoint) = open_ones.get(&state).and_then(Weak::upgrade) {
            return Ok(checkpoint);
        }
        let checkpoint = Arc::new(Checkpoint::load(&open(&file)?).map_err(Error::other)?);
        open_ones.retain(|_, checkpoint| checkpoint.strong_count() > 0);
        open_ones.insert(state, Arc::downgrade(&checkpoint));
        Ok(checkpoint)
    }

    /// The adapter file of that name in the folder loras.
    ///
    /// # Errors
    /// If there is none, or it is broken.
    pub fn adapter(&self, folders: &Folders, name: &str) -> Result<Arc<AdapterFile>> {
        let file = folders.find("loras", name)?;
        let state = FileState::of(&file)?;
        let mut known = self.adapters.lock();
        if let Some(adapter) = known.get(&state) {
            return Ok(adapter.clone());
        }
        let adapter = Arc::new(AdapterFile::new(&open(&file)?));
        known.insert(state, adapter.clone());
        Ok(adapter)
    }
}
