//! Adapters: files that change the weights of a model, LoRA and its kin.
//!
//! An [`AdapterFile`] is read once into one [`Adapter`] per module it names; a [`KeyTable`] says which parameter of a component
//! (network or text encoder) each module name means in any of the naming styles in use; [`AdapterFile::patches`] joins the two.
//! [`crate::patcher`] applies the result.

mod apply;
mod decompose;
pub mod extract;
mod file;
pub(crate) mod fused;
mod linalg;
mod low_rank;
mod module;
pub mod names;
mod rotation;
mod svd;

pub use apply::{Patch, PatchError, apply_patches};
pub use file::{AdapterFile, Unmatched};
pub use module::{Adapter, AdapterKind};
pub use names::{KeyTable, Slice, Target};
