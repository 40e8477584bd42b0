//! Names of diffusers folders brought to those of single files, which the networks and adapters use.
//!
//! A plan says for every single-file tensor which tensors of the folder make it; it depends on names only. Carrying it out
//! copies nothing but what the single file stores fused (query, key and value) or in another order.

mod plan;
mod transformer;
mod unet;
mod vae;

use lattice_weights::StateDict;

pub use plan::{Piece, Plan};
pub use transformer::{flux, sd3};
pub use unet::{controlnet, unet};
pub use vae::autoencoder_kl;

/// All tensor names.
pub(crate) fn names(dict: &StateDict) -> impl Iterator<Item = &str> + Clone {
    let names: Vec<&str> = dict.iter().map(|(name, _)| name).collect();
    names.into_iter()
}
