//! Between pictures and latents.

use std::sync::Arc;

use lattice_graph::Node;

use crate::Result;
use crate::node::node;
use crate::types::{Image, Latent, Vae};

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![vae_decode, vae_encode]
}

/// Turns latents into pictures.
#[node(name = "VAEDecode", title = "VAE Decode", category = "latent", module = "nodes")]
fn vae_decode(
    /// What to decode.
    samples: Latent,
    /// The autoencoder of the latents' model family.
    vae: Vae,
) -> Result<Image> {
    Ok(Image(vae.decode(&samples.samples)?))
}

/// Turns pictures into latents. Alpha is dropped.
#[node(name = "VAEEncode", title = "VAE Encode", category = "latent", module = "nodes")]
fn vae_encode(pixels: Image, vae: Vae) -> Result<Latent> {
    Ok(Latent::new(vae.encode(&pixels.0)?))
}
