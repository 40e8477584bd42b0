//! Between float images and 8-bit pixels.

use candle_core::{Device, Result, Tensor, bail};
use rayon::prelude::*;

use crate::tensor;

/// Samples of a picture from which on waking other threads costs less than the work.
const PARALLEL_FROM: usize = 1 << 17;

/// One 8-bit picture: rows from the top, channels interleaved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pixels {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Channels: 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA.
    pub channels: usize,
    /// `height * width * channels` samples.
    pub data: Vec<u8>,
}

/// The 8-bit value of a sample in 0..1: 255 v, clamped, then truncated (not rounded). NaN gives 0.
pub fn to_u8(v: f32) -> u8 {
    (255.0 * v).clamp(0.0, 255.0) as u8
}

/// 8-bit pictures of an image batch `[B, H, W, C]` (or one image `[H, W, C]`), C in 1..=4.
///
/// # Errors
/// If the shape is another.
pub fn from_images(images: &Tensor) -> Result<Vec<Pixels>> {
    let images = if images.rank() == 3 { images.unsqueeze(0)? } else { images.clone() };
    let (_, height, width, channels) = images.dims4()?;
    if !(1..=4).contains(&channels) {
        bail!("an image has 1 to 4 channels, not {channels}")
    }
    let picture = |i| {
        let samples = tensor::to_vec(&images.get(i)?)?;
        let data = if samples.len() < PARALLEL_FROM {
            samples.into_iter().map(to_u8).collect()
        } else {
            samples.into_par_iter().map(to_u8).collect()
        };
        Ok(Pixels { width, height, channels, data })
    };
    (0..images.dim(0)?).map(picture).collect()
}

/// The image batch `[B, H, W, C]` of pictures of equal size: samples / 255, f32 on the CPU.
///
/// # Errors
/// If there are no pictures or their sizes differ.
pub fn to_images(pictures: &[Pixels]) -> Result<Tensor> {
    let Some(first) = pictures.first() else { bail!("no pictures to make a batch of") };
    let shape = [pictures.len(), first.height, first.width, first.channels];
    let mut data = tensor::filled(&shape, 0f32)?;
    let each = shape[1..].iter().product::<usize>();
    for (p, out) in pictures.iter().zip(data.chunks_exact_mut(each.max(1))) {
        if (p.height, p.width, p.channels) != (first.height, first.width, first.channels)
            || p.data.len() != each
        {
            bail!("pictures of a batch must have one size")
        }
        out.par_iter_mut().zip(&p.data).for_each(|(o, &v)| *o = f32::from(v) / 255.0);
    }
    Tensor::from_vec(data, &shape[..], &Device::Cpu)
}
