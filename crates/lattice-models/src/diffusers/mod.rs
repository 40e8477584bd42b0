//! Names of diffusers folders brought to those of single files, which the networks and adapters use.
//!
//! A plan says for every single-file tensor which tensors of the folder make it; it depends on names only. Carrying it out
//! copies nothing but what the single file stores fused (query, key and value) or in another order.

mod plan;
mod transformer;
mod unet;
mod vae;

pub use plan::{Piece, Plan};
pub use transformer::{flux, sd3};
pub use unet::unet;
pub use vae::autoencoder_kl;
