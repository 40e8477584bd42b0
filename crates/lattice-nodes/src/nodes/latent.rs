//! Latents: empty ones, other sizes, and masks on them.

use std::sync::Arc;

use lattice_graph::Node;
use lattice_media::resize::{Crop, Method, common_upscale};

use super::MAX_RESOLUTION;
use crate::node::node;
use crate::tensors::filled;
use crate::types::{Latent, Mask};
use crate::{Error, Result};

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![
        empty_latent_image,
        empty_sd3_latent_image,
        latent_upscale,
        latent_upscale_by,
        set_latent_noise_mask
    ]
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

/// Resizes latents to a size in pixels. A side of 0 follows from the other; both 0 change nothing.
#[node(name = "LatentUpscale", title = "Upscale Latent", category = "latent", module = "nodes")]
fn latent_upscale(
    samples: Latent,
    #[choice("nearest-exact", "bilinear", "area", "bicubic", "bislerp")] upscale_method: &str,
    #[widget(default = 512, min = 0, max = MAX_RESOLUTION, step = 8)] width: usize,
    #[widget(default = 512, min = 0, max = MAX_RESOLUTION, step = 8)] height: usize,
    #[choice("disabled", "center")] crop: &str,
) -> Result<Latent> {
    let (old_height, old_width) = spatial(&samples)?;
    let follow = |given: usize, of: usize, by: usize| {
        (of as f64 * given as f64 / by.max(1) as f64).round_ties_even() as usize
    };
    let (width, height) = match (width, height) {
        (0, 0) => return Ok(samples),
        (0, height) => (follow(height.max(SMALLEST), old_width, old_height), height),
        (width, 0) => (width, follow(width.max(SMALLEST), old_height, old_width)),
        sizes => sizes,
    };
    resized(&samples, width.max(SMALLEST) / 8, height.max(SMALLEST) / 8, upscale_method, crop)
}

/// Resizes latents by a factor.
#[node(name = "LatentUpscaleBy", title = "Upscale Latent By", category = "latent", module = "nodes")]
fn latent_upscale_by(
    samples: Latent,
    #[choice("nearest-exact", "bilinear", "area", "bicubic", "bislerp")] upscale_method: &str,
    #[widget(default = 1.5, min = 0.01, max = 8.0, step = 0.01)] scale_by: f64,
) -> Result<Latent> {
    let (height, width) = spatial(&samples)?;
    let scaled = |side: usize| (side as f64 * scale_by).round_ties_even() as usize;
    resized(&samples, scaled(width), scaled(height), upscale_method, "disabled")
}

/// Least side in pixels that a latent is resized to.
const SMALLEST: usize = 64;

/// Rows and columns of a latent in cells.
fn spatial(latent: &Latent) -> Result<(usize, usize)> {
    match *latent.samples.dims() {
        [_, _, h, w] | [_, _, _, h, w] => Ok((h, w)),
        ref other => Err(Error::value(format!("a latent of shape {other:?} has no rows and columns"))),
    }
}

/// The latent with `width` x `height` cells.
fn resized(latent: &Latent, width: usize, height: usize, method: &str, crop: &str) -> Result<Latent> {
    let (method, crop): (Method, Crop) = (method.parse()?, crop.parse()?);
    Ok(latent.with_samples(common_upscale(&latent.samples, width, height, method, crop)?))
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
