//! Folding squares of pixels into channels and back (Shi et al. 2016).

use candle_core::{Result, Tensor, bail};

/// Folds squares of `factor` by `factor` pixels into channels, (channel, row, column); sides that are no multiple are first
/// continued by reflection.
pub(crate) fn pixel_unshuffle(x: &Tensor, factor: usize) -> Result<Tensor> {
    if factor == 1 {
        return Ok(x.clone());
    }
    let x = pad_reflect(&pad_reflect(x, 2, factor)?, 3, factor)?;
    let (b, c, h, w) = x.dims4()?;
    let x = x.reshape(&[b, c, h / factor, factor, w / factor, factor])?;
    x.permute([0, 1, 3, 5, 2, 4])?.reshape((b, c * factor * factor, h / factor, w / factor))
}

/// Inverse of [`pixel_unshuffle`].
pub(crate) fn pixel_shuffle(x: &Tensor, factor: usize) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    let c = c / (factor * factor);
    let x = x.reshape(&[b, c, factor, factor, h, w])?;
    x.permute([0, 1, 4, 2, 5, 3])?.reshape((b, c, h * factor, w * factor))
}

/// Continues an axis by reflection (the last cell not repeated) to a multiple of `factor`.
fn pad_reflect(x: &Tensor, axis: usize, factor: usize) -> Result<Tensor> {
    let size = x.dim(axis)?;
    let missing = size.next_multiple_of(factor) - size;
    if missing == 0 {
        return Ok(x.clone());
    }
    if missing >= size {
        bail!("a picture of {size} pixels is too small to be folded by {factor}")
    }
    let ids: Vec<u32> = (0..size).chain((1..=missing).map(|i| size - 1 - i)).map(|i| i as u32).collect();
    x.contiguous()?.index_select(&Tensor::new(ids, x.device())?, axis)
}
