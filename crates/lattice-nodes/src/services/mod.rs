//! What the host lends to nodes: folders, output names, the model cache.

mod folders;

pub use folders::{Folders, ModelFile, Root, inside, split_annotation};
