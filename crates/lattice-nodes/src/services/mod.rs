//! What the host lends to nodes: folders, settings, the names of saved files.

mod counters;
mod embeddings;
mod folders;
mod hash;
mod ledger;
mod models;
mod output;
mod tiny_vae;
mod write;

use std::sync::Arc;

use lattice_graph::Extensions;

pub use embeddings::{Embeddings, EncoderEmbeddings};
pub use folders::{Folders, ModelFile, Root, inside, split_annotation};
pub use hash::file_hash;
pub use ledger::Ledger;
pub use models::{ModelCache, open};
pub use output::{OutputNames, SavedFile};
pub use tiny_vae::{TinyVae, preview_decoder};
pub use write::{write_new, write_over};

/// How pictures are shown while they are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Previews {
    /// Not at all.
    #[default]
    None,
    /// By a tiny decoder if there is one for the latent's format, else by a linear map.
    Auto,
    /// A linear map of the latent's channels.
    LatentToRgb,
    /// By a tiny decoder, and a complaint where there is none.
    Taesd,
}

/// Choices of the host that nodes follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether saved files carry the prompt and the workflow.
    pub metadata: bool,
    /// Pictures during sampling.
    pub previews: Previews,
    /// Longer side of those, in pixels.
    pub preview_size: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { metadata: true, previews: Previews::default(), preview_size: 512 }
    }
}

/// All that the nodes of this library ask of their host.
pub fn services(folders: Folders, settings: Settings) -> Extensions {
    let mut extensions = Extensions::default();
    let folders = Arc::new(folders);
    extensions.insert(Embeddings(folders.clone()));
    extensions.insert_shared(folders);
    extensions.insert(ModelCache::default());
    extensions.insert(settings);
    extensions
}
