//! Encoders of pictures, and what they make of them.

use std::sync::Arc;

use candle_core::{DType, Result, Tensor};
use lattice_media::resize::{Crop, Method, common_upscale};
use lattice_models::vision::ColorStatistics;

use super::{Image, tensor_bytes};
use crate::node::GraphType;

/// A vision tower. Its weights are mapped, so a copy costs nothing.
#[derive(Clone)]
pub struct ClipVision(pub Arc<lattice_models::ClipVision>);

impl GraphType for ClipVision {
    const NAME: &'static str = "CLIP_VISION";
}

/// Encoded pictures.
#[derive(Clone, Debug)]
pub struct ClipVisionOutput {
    /// States after the last block, [B, tokens, width]; final-normed for SigLIP.
    pub last: Tensor,
    /// States after the last block but one, [B, tokens, width].
    pub penultimate: Tensor,
    /// One vector for each picture, [B, width].
    pub embeds: Tensor,
}

impl GraphType for ClipVisionOutput {
    const NAME: &'static str = "CLIP_VISION_OUTPUT";

    fn bytes(&self) -> usize {
        [&self.last, &self.penultimate, &self.embeds].into_iter().map(tensor_bytes).sum()
    }
}

impl ClipVision {
    /// Encodes pictures [B, H, W, C] in 0..1. `crop` cuts their longer side around the middle; else they are squeezed.
    ///
    /// # Errors
    /// If they are no pictures.
    pub fn encode(&self, images: &Image, crop: bool) -> Result<ClipVisionOutput> {
        let size = self.0.config().image_size;
        let mut out = self.0.encode(&pixels_for_vision(images, size, crop, self.0.colors())?)?;
        out.layers.pop();
        let penultimate = out.layers.pop().unwrap_or_else(|| out.last.clone());
        Ok(ClipVisionOutput { last: out.last, penultimate, embeds: out.embeds })
    }
}

/// Pictures [B, H, W, C] in 0..1 as towers see them, [B, 3, size, size]: resized (antialiased cubic convolution), rounded to 8
/// bits, and normalised.
///
/// # Errors
/// If they are no pictures, or have no colours.
pub fn pixels_for_vision(
    images: &Image,
    size: usize,
    crop: bool,
    colors: &ColorStatistics,
) -> Result<Tensor> {
    let (_, height, width, _) = images.0.dims4()?;
    let planes = images.planes()?;
    let (h, w) = if crop {
        let scale = size as f64 / height.min(width).max(1) as f64;
        let side = |n: usize| ((n as f64 * scale).round_ties_even() as usize).max(size);
        (side(height), side(width))
    } else {
        (size, size)
    };
    let resized = if (height, width) == (h, w) {
        planes
    } else {
        common_upscale(&planes, w, h, Method::BicubicAntialiased, Crop::Disabled)?
    };
    let (top, left) = ((h - size) / 2, (w - size) / 2);
    let square = resized.narrow(2, top, size)?.narrow(3, left, size)?;
    // Halves go to the even neighbour, which the tensor library's rounding does not do.
    let levels: Vec<f32> = square.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
    let levels = levels.into_iter().map(|v| (255.0 * v).clamp(0.0, 255.0).round_ties_even() / 255.0);
    let rounded = Tensor::from_vec(levels.collect(), square.shape(), images.0.device())?;
    let per_channel = |v: [f32; 3]| Tensor::new(&v, images.0.device())?.reshape((1, 3, 1, 1));
    rounded
        .broadcast_sub(&per_channel(colors.mean)?)?
        .broadcast_div(&per_channel(colors.deviation)?)?
        .contiguous()
}
