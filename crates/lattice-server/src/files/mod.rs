//! Files that requests read and write: none outside of its folder.

mod answer;
mod folder;
mod name;
mod picture;

use std::path::Path;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::host::Roots;

pub(crate) use answer::{Disposition, FileAnswer, disposition};
pub(crate) use folder::{Entry, FileError, Folder, seconds};
pub(crate) use name::{Root, inside, split_annotation};
pub(crate) use picture::{Channel, PictureError, Preview, channel, picture_size, preview, with_alpha_of};

/// Uploads received at a time; each may hold as much as a request may bring.
const UPLOADS: usize = 8;

/// Pictures decoded at a time; each may take some hundred megabytes.
const PICTURES: usize = 2;

/// The folders of requests, and what keeps requests for them from getting into each other's way.
pub(crate) struct Files {
    roots: Roots,
    pub(crate) uploads: Semaphore,
    pub(crate) pictures: Semaphore,
    /// Held from finding a free name to taking it.
    pub(crate) naming: Mutex<()>,
}

impl Files {
    pub(crate) fn new(roots: Roots) -> Self {
        let (uploads, pictures) = (Semaphore::new(UPLOADS), Semaphore::new(PICTURES));
        Self { roots, uploads, pictures, naming: Mutex::default() }
    }

    /// Opens a root; made if it is not there, or no longer.
    pub(crate) fn root(&self, root: Root) -> Result<Folder, FileError> {
        Folder::make(match root {
            Root::Input => &self.roots.input,
            Root::Output => &self.roots.output,
            Root::Temp => &self.roots.temp,
        })
    }

    /// The folder in which each user has one.
    pub(crate) fn users(&self) -> &Path {
        &self.roots.user
    }
}
