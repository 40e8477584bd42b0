//! Vector conditions: pooled text and, for SDXL, sizes.

use candle_core::{DType, Result, Tensor};
use lattice_models::detect::Family;

use super::{ListRole, Run};
use crate::conditioning::{Options, SizeOptions};

/// Width of one embedded number.
const SIZE_WIDTH: usize = 256;

/// The pooled text, or zeros of this width.
pub(super) fn pooled(options: &Options, width: usize, run: &Run) -> Result<Tensor> {
    match &options.pooled {
        Some(pooled) => pooled.to_dtype(DType::F32)?.to_device(&run.device),
        None => Tensor::zeros((1, width), DType::F32, &run.device),
    }
}

/// SDXL's condition (arXiv 2307.01952): pooled text, then height, width, crop and target size.
pub(super) fn sdxl(options: &Options, width: usize, run: &Run) -> Result<Tensor> {
    let sizes = options.sizes;
    let (height, original_width) = (sizes.height.unwrap_or(768.0), sizes.width.unwrap_or(768.0));
    let numbers = [
        height,
        original_width,
        sizes.crop_h.unwrap_or(0.0),
        sizes.crop_w.unwrap_or(0.0),
        sizes.target_height.unwrap_or(height),
        sizes.target_width.unwrap_or(original_width),
    ];
    with_numbers(options, &numbers, width, run)
}

/// The refiner's condition: pooled text, then height, width, crop and the aesthetic score.
pub(super) fn sdxl_refiner(options: &Options, role: ListRole, width: usize, run: &Run) -> Result<Tensor> {
    let SizeOptions { width: w, height: h, crop_w, crop_h, aesthetic_score, .. } = options.sizes;
    let usual_score = if role == ListRole::Positive { 6.0 } else { 2.5 };
    let numbers = [
        h.unwrap_or(768.0),
        w.unwrap_or(768.0),
        crop_h.unwrap_or(0.0),
        crop_w.unwrap_or(0.0),
        aesthetic_score.unwrap_or(usual_score),
    ];
    with_numbers(options, &numbers, width, run)
}

/// Width of the embedded numbers behind the pooled text.
pub(super) fn sizes_width(family: Family) -> usize {
    match family {
        Family::Sdxl => 6 * SIZE_WIDTH,
        Family::SdxlRefiner => 5 * SIZE_WIDTH,
        _ => 0,
    }
}

fn with_numbers(options: &Options, numbers: &[f64], width: usize, run: &Run) -> Result<Tensor> {
    let pooled = pooled(options, width.saturating_sub(numbers.len() * SIZE_WIDTH), run)?;
    let values: Vec<f32> = numbers.iter().flat_map(|&v| sinusoid(v, SIZE_WIDTH)).collect();
    let values = Tensor::from_vec(values, (1, numbers.len() * SIZE_WIDTH), &run.device)?;
    let values = values.broadcast_as((pooled.dim(0)?, values.dim(1)?))?;
    Tensor::cat(&[&pooled, &values.contiguous()?], 1)
}

/// A number as the network's timesteps are embedded: cosines, then sines, of falling frequencies.
pub(super) fn sinusoid(value: f64, width: usize) -> Vec<f32> {
    let half = width / 2;
    let angles = (0..half).map(|i| {
        let frequency = (-(10000f64.ln()) * i as f64 / half as f64).exp() as f32;
        value as f32 * frequency
    });
    let angles: Vec<f32> = angles.collect();
    angles.iter().map(|a| a.cos()).chain(angles.iter().map(|a| a.sin())).collect()
}
