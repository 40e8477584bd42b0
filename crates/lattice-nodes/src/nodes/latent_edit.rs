//! Sizes and shapes of latents, and mixing them.

use std::sync::Arc;

use lattice_diffusion::latent::{self, Axis, Operation};
use lattice_graph::Node;
use lattice_media::resize::{Crop, common_upscale};
use lattice_media::transform;

use super::MAX_RESOLUTION;
use super::image_transform::{Flip, Rotation};
use crate::node::{GraphType, node};
use crate::types::Latent;
use crate::{Error, Result};

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![
        latent_upscale,
        latent_upscale_by,
        latent_composite,
        latent_blend,
        latent_rotate,
        latent_flip,
        latent_crop,
        latent_add,
        latent_subtract,
        latent_multiply,
        latent_interpolate,
        latent_concat,
        latent_cut,
        trim_video_latent,
        latent_apply_operation,
        latent_operation_tonemap_reinhard,
        latent_operation_sharpen,
    ]
}

/// Pixels per latent cell.
const CELL: usize = 8;

/// Height and width in cells.
fn size(samples: &candle_core::Tensor) -> Result<(usize, usize)> {
    match *samples.dims() {
        [_, _, .., h, w] => Ok((h, w)),
        ref other => Err(Error::value(format!("a latent of shape {other:?} has no height and width"))),
    }
}

/// Resizes latents to a size in pixels. A size of 0 keeps the aspect ratio; with both 0 nothing changes.
#[node(name = "LatentUpscale", title = "Upscale Latent", category = "latent", module = "nodes")]
fn latent_upscale(
    samples: Latent,
    #[choice("nearest-exact", "bilinear", "area", "bicubic", "bislerp")] upscale_method: &str,
    #[widget(default = 512, min = 0, max = MAX_RESOLUTION, step = 8)] width: usize,
    #[widget(default = 512, min = 0, max = MAX_RESOLUTION, step = 8)] height: usize,
    #[choice("disabled", "center")] crop: &str,
) -> Result<Latent> {
    const LEAST: usize = 64;
    let (h, w) = size(&samples.samples)?;
    let kept = |size: usize, other: usize, given: usize| {
        ((size as f64 * given as f64 / other as f64).round_ties_even() as usize).max(LEAST)
    };
    let (width, height) = match (width, height) {
        (0, 0) => return Ok(samples),
        (0, height) => (kept(w, h, height.max(LEAST)), height.max(LEAST)),
        (width, 0) => (width.max(LEAST), kept(h, w, width.max(LEAST))),
        (width, height) => (width.max(LEAST), height.max(LEAST)),
    };
    let (method, crop) = (upscale_method.parse()?, crop.parse()?);
    let resized = common_upscale(&samples.samples, width / CELL, height / CELL, method, crop)?;
    Ok(samples.with_samples(resized))
}

/// Resizes latents by a factor.
#[node(name = "LatentUpscaleBy", title = "Upscale Latent By", category = "latent", module = "nodes")]
fn latent_upscale_by(
    samples: Latent,
    #[choice("nearest-exact", "bilinear", "area", "bicubic", "bislerp")] upscale_method: &str,
    #[widget(default = 1.5, min = 0.01, max = 8.0, step = 0.01)] scale_by: f64,
) -> Result<Latent> {
    let (h, w) = size(&samples.samples)?;
    let scaled = |size: usize| (size as f64 * scale_by).round_ties_even() as usize;
    let method = upscale_method.parse()?;
    let resized = common_upscale(&samples.samples, scaled(w), scaled(h), method, Crop::Disabled)?;
    Ok(samples.with_samples(resized))
}

/// Pastes latents onto others, fading over the edges that lie inside.
#[node(name = "LatentComposite", title = "Latent Composite", category = "latent", module = "nodes")]
fn latent_composite(
    samples_to: Latent,
    samples_from: Latent,
    #[widget(default = 0, min = 0, max = MAX_RESOLUTION, step = 8)] x: usize,
    #[widget(default = 0, min = 0, max = MAX_RESOLUTION, step = 8)] y: usize,
    #[widget(default = 0, min = 0, max = MAX_RESOLUTION, step = 8)] feather: usize,
) -> Result<Latent> {
    let (to, from) = (&samples_to.samples, &samples_from.samples);
    let pasted = latent::composite(to, from, x / CELL, y / CELL, feather / CELL)?;
    Ok(samples_to.with_samples(pasted))
}

/// Mixes two latents.
#[node(name = "LatentBlend", title = "Latent Blend", category = "_for_testing", module = "nodes")]
fn latent_blend(
    samples1: Latent,
    samples2: Latent,
    #[widget(default = 0.5, min = 0, max = 1, step = 0.01)] blend_factor: f64,
) -> Result<Latent> {
    let mixed = latent::blend(&samples1.samples, &samples2.samples, blend_factor)?;
    Ok(samples1.with_samples(mixed))
}

/// Turns latents clockwise.
#[node(name = "LatentRotate", title = "Rotate Latent", category = "latent/transform", module = "nodes")]
fn latent_rotate(samples: Latent, rotation: Rotation) -> Result<Latent> {
    let rows = rows_axis(&samples)?;
    Ok(samples.with_samples(transform::rotate(&samples.samples, rows, rotation as usize)?))
}

/// Mirrors latents.
#[node(name = "LatentFlip", title = "Flip Latent", category = "latent/transform", module = "nodes")]
fn latent_flip(samples: Latent, flip_method: Flip) -> Result<Latent> {
    let axis = rows_axis(&samples)? + usize::from(flip_method == Flip::Columns);
    Ok(samples.with_samples(samples.samples.flip(&[axis])?.contiguous()?))
}

fn rows_axis(latent: &Latent) -> Result<usize> {
    size(&latent.samples)?;
    Ok(latent.samples.rank() - 2)
}

/// Cuts a rectangle out of latents.
#[node(name = "LatentCrop", title = "Crop Latent", category = "latent/transform", module = "nodes")]
fn latent_crop(
    samples: Latent,
    #[widget(default = 512, min = 64, max = MAX_RESOLUTION, step = 8)] width: usize,
    #[widget(default = 512, min = 64, max = MAX_RESOLUTION, step = 8)] height: usize,
    #[widget(default = 0, min = 0, max = MAX_RESOLUTION, step = 8)] x: usize,
    #[widget(default = 0, min = 0, max = MAX_RESOLUTION, step = 8)] y: usize,
) -> Result<Latent> {
    let [x, y, width, height] = [x, y, width, height].map(|pixels| pixels / CELL);
    Ok(samples.with_samples(latent::crop(&samples.samples, x, y, width, height)?.contiguous()?))
}

/// Adds two latents.
#[node(name = "LatentAdd", category = "latent/advanced", module = "comfy_extras.nodes_latent", v3)]
fn latent_add(#[widget] samples1: Latent, #[widget] samples2: Latent) -> Result<Latent> {
    Ok(samples1.with_samples(latent::add(&samples1.samples, &samples2.samples)?))
}

/// Subtracts a latent from another.
#[node(name = "LatentSubtract", category = "latent/advanced", module = "comfy_extras.nodes_latent", v3)]
fn latent_subtract(#[widget] samples1: Latent, #[widget] samples2: Latent) -> Result<Latent> {
    Ok(samples1.with_samples(latent::subtract(&samples1.samples, &samples2.samples)?))
}

/// Multiplies a latent by a number.
#[node(name = "LatentMultiply", category = "latent/advanced", module = "comfy_extras.nodes_latent", v3)]
fn latent_multiply(
    #[widget] samples: Latent,
    #[widget(default = 1.0, min = -10.0, max = 10.0, step = 0.01)] multiplier: f64,
) -> Result<Latent> {
    Ok(samples.with_samples((&samples.samples * multiplier)?))
}

/// Mixes the directions and the lengths of two latents' channel vectors.
#[node(name = "LatentInterpolate", category = "latent/advanced", module = "comfy_extras.nodes_latent", v3)]
fn latent_interpolate(
    #[widget] samples1: Latent,
    #[widget] samples2: Latent,
    #[widget(default = 1.0, min = 0.0, max = 1.0, step = 0.01)] ratio: f64,
) -> Result<Latent> {
    Ok(samples1.with_samples(latent::interpolate(&samples1.samples, &samples2.samples, ratio)?))
}

fn axis(name: &str) -> Result<Axis> {
    match name {
        "x" => Ok(Axis::X),
        "y" => Ok(Axis::Y),
        "t" => Ok(Axis::T),
        _ => Err(Error::value(format!("unknown axis {name:?}"))),
    }
}

/// Joins two latents along an axis; with a minus sign the second comes first.
#[node(name = "LatentConcat", category = "latent/advanced", module = "comfy_extras.nodes_latent", v3)]
fn latent_concat(
    #[widget] samples1: Latent,
    #[widget] samples2: Latent,
    #[combo("x", "-x", "y", "-y", "t", "-t")] dim: &str,
) -> Result<Latent> {
    let (name, second_leads) = dim.strip_prefix('-').map_or((dim, false), |name| (name, true));
    let joined = latent::concat(&samples1.samples, &samples2.samples, axis(name)?, second_leads)?;
    Ok(samples1.with_samples(joined))
}

/// Cuts a range along an axis out of a latent. A negative index counts from the end.
#[node(name = "LatentCut", category = "latent/advanced", module = "comfy_extras.nodes_latent", v3)]
fn latent_cut(
    #[widget] samples: Latent,
    #[combo("x", "y", "t")] dim: &str,
    #[widget(default = 0, min = -16384, max = MAX_RESOLUTION, step = 1)] index: i64,
    #[widget(default = 1, min = 1, max = MAX_RESOLUTION, step = 1)] amount: usize,
) -> Result<Latent> {
    Ok(samples.with_samples(latent::cut(&samples.samples, axis(dim)?, index, amount)?.contiguous()?))
}

/// Drops the first frames of a video latent.
#[node(name = "TrimVideoLatent", category = "latent/video", module = "comfy_extras.nodes_wan", v3)]
fn trim_video_latent(
    #[widget] samples: Latent,
    #[widget(default = 0, min = 0, max = 99999)] trim_amount: usize,
) -> Result<Latent> {
    let frames = samples.samples.dim(2)?;
    let start = trim_amount.min(frames);
    Ok(samples.with_samples(samples.samples.narrow(2, start, frames - start)?.contiguous()?))
}

impl GraphType for Operation {
    const NAME: &'static str = "LATENT_OPERATION";
}

/// Applies an operation to a latent.
#[node(
    name = "LatentApplyOperation",
    category = "latent/advanced/operations",
    module = "comfy_extras.nodes_latent",
    v3,
    experimental
)]
fn latent_apply_operation(#[widget] samples: Latent, #[widget] operation: Operation) -> Result<Latent> {
    Ok(samples.with_samples(operation.apply(&samples.samples)?))
}

/// Compresses the greatest values, which strong guidance makes too great.
#[node(
    name = "LatentOperationTonemapReinhard",
    category = "latent/advanced/operations",
    module = "comfy_extras.nodes_latent",
    v3,
    experimental
)]
fn latent_operation_tonemap_reinhard(
    #[widget(default = 1.0, min = 0.0, max = 100.0, step = 0.01)] multiplier: f64,
) -> Operation {
    Operation::TonemapReinhard { multiplier }
}

/// Sharpens latents.
#[node(
    name = "LatentOperationSharpen",
    category = "latent/advanced/operations",
    module = "comfy_extras.nodes_latent",
    v3,
    experimental
)]
fn latent_operation_sharpen(
    #[widget(default = 9, min = 1, max = 31, step = 1)] sharpen_radius: usize,
    #[widget(default = 1.0, min = 0.1, max = 10.0, step = 0.1)] sigma: f64,
    #[widget(default = 0.1, min = 0.0, max = 5.0, step = 0.01)] alpha: f64,
) -> Operation {
    Operation::Sharpen { radius: sharpen_radius, sigma, alpha }
}
