//! Latents: empty ones, and masks on them.

use std::sync::Arc;

use lattice_graph::Node;

use super::MAX_RESOLUTION;
use crate::Result;
use crate::node::node;
use crate::tensors::filled;
use crate::types::{Latent, Mask};

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![empty_latent_image, empty_sd3_latent_image, set_latent_noise_mask]
}

/// Makes empty latents for text-to-image: 4 channels, one cell for 8 pixels. Models with other channels adapt them.
#[node(name = "EmptyLatentImage", title = "Empty Latent Image", category = "latent", module = "nodes")]
fn empty_latent_image(
    #[widget(default = 512, min = 16, max = MAX_RESOLUTION, step = 8)] width: usize,
    #[widget(default = 512, min = 16, max = MAX_RESOLUTION, step = 8)] height: usize,
    #[widget(default = 1, min = 1, max = 4096)] batch_size: usize,
) -> Result<Latent> {
    Ok(Latent::new(filled(&[batch_size, 4, height / 8, width / 8], 0.0)?))
}

/// Makes empty latents of 16 channels (SD3, Flux).
#[node(name = "EmptySD3LatentImage", category = "latent/sd3", module = "comfy_extras.nodes_sd3", v3)]
fn empty_sd3_latent_image(
    #[widget(default = 1024, min = 16, max = MAX_RESOLUTION, step = 16)] width: usize,
    #[widget(default = 1024, min = 16, max = MAX_RESOLUTION, step = 16)] height: usize,
    #[widget(default = 1, min = 1, max = 4096)] batch_size: usize,
) -> Result<Latent> {
    Ok(Latent::new(filled(&[batch_size, 16, height / 8, width / 8], 0.0)?))
}

/// Limits sampling to where the mask is 1; the rest of the latent is kept.
#[node(
    name = "SetLatentNoiseMask",
    title = "Set Latent Noise Mask",
    category = "latent/inpaint",
    module = "nodes"
)]
fn set_latent_noise_mask(samples: Latent, mask: Mask) -> Result<Latent> {
    let noise_mask = Some(mask.planes()?);
    Ok(Latent { noise_mask, ..samples })
}
