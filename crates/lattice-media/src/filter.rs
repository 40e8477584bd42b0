//! Blurring and sharpening.

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use crate::tensor;

/// How a picture goes on beyond its border.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Border {
    /// Mirrored, the edge pixel not repeated.
    Reflect,
    /// The edge pixel repeated.
    Replicate,
}

impl Border {
    /// The pixel of a line of `n` that stands at `i`; for reflection `i` lies less than `n` outside.
    pub(crate) fn index(self, i: isize, n: usize) -> usize {
        let last = n as isize - 1;
        let i = match self {
            Self::Replicate => i.clamp(0, last),
            Self::Reflect if i < 0 => -i,
            Self::Reflect if i > last => 2 * last - i,
            Self::Reflect => i,
        };
        i as usize
    }
}

/// One-dimensional Gaussian of 2 `radius` + 1 taps, normalised. The taps stand at -1..1 whatever the radius, so sigma is
/// relative to the radius.
pub fn relative_gaussian(radius: usize, sigma: f32) -> Vec<f32> {
    let step = 1.0 / radius.max(1) as f32;
    gaussian((0..=2 * radius).map(|i| i as f32 * step - 1.0 + f32::from(radius == 0)), sigma)
}

/// One-dimensional Gaussian with taps at the given coordinates, normalised.
pub(crate) fn gaussian(coordinates: impl Iterator<Item = f32>, sigma: f32) -> Vec<f32> {
    let taps: Vec<f32> = coordinates.map(|x| (-x * x / (2.0 * sigma * sigma)).exp()).collect();
    let sum: f32 = taps.iter().sum();
    taps.into_iter().map(|t| t / sum).collect()
}

/// Convolution of planes `[B, C, H, W]` with the outer product of a symmetric odd kernel with itself.
///
/// # Errors
/// If the planes are too small to be mirrored.
pub fn convolve(planes: &Tensor, kernel: &[f32], border: Border) -> Result<Tensor> {
    let (b, c, h, w) = planes.dims4()?;
    let radius = kernel.len() / 2;
    if border == Border::Reflect && radius >= h.min(w) {
        bail!("a picture of {w}x{h} pixels is too small for a kernel of radius {radius}")
    }
    if h * w == 0 {
        return Ok(planes.clone());
    }
    let mut data = tensor::to_vec(planes)?;
    let tap = |i: usize, k: usize, n: usize| border.index((i + k) as isize - radius as isize, n);
    data.par_chunks_exact_mut(h * w).for_each(|plane| {
        let mut line = vec![0f32; w];
        for row in plane.chunks_exact_mut(w) {
            for (x, out) in line.iter_mut().enumerate() {
                *out = kernel.iter().enumerate().map(|(k, t)| t * row[tap(x, k, w)]).sum();
            }
            row.copy_from_slice(&line);
        }
        let source = plane.to_vec();
        for (y, row) in plane.chunks_exact_mut(w).enumerate() {
            row.fill(0.0);
            for (k, t) in kernel.iter().enumerate() {
                let from = &source[tap(y, k, h) * w..];
                row.iter_mut().zip(from).for_each(|(o, v)| *o += t * v);
            }
        }
    });
    tensor::from_vec(data, (b, c, h, w), planes)
}

/// Gaussian blur of planes `[B, C, H, W]` over a square of 2 `radius` + 1; radius 0 changes nothing.
///
/// # Errors
/// If a side is not longer than the radius.
pub fn blur(planes: &Tensor, radius: usize, sigma: f64) -> Result<Tensor> {
    if radius == 0 {
        return Ok(planes.clone());
    }
    convolve(planes, &relative_gaussian(radius, sigma as f32), Border::Reflect)
}

/// Unsharp mask of planes `[B, C, H, W]`: x + 10 `alpha` (x - blur(x)), not clamped; radius 0 changes nothing.
///
/// # Errors
/// If a side is not longer than the radius.
pub fn sharpen(planes: &Tensor, radius: usize, sigma: f64, alpha: f64) -> Result<Tensor> {
    if radius == 0 {
        return Ok(planes.clone());
    }
    let detail = (planes - blur(planes, radius, sigma)?)?;
    planes + (detail * (10.0 * alpha))?
}

/// Applies `f` to images `[B, H, W, C]` as planes.
///
/// # Errors
/// Those of `f`.
pub fn on_images(images: &Tensor, f: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    f(&images.permute((0, 3, 1, 2))?.contiguous()?)?.permute((0, 2, 3, 1))?.contiguous()
}
