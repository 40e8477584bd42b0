//! Masked latents: regions that are kept as they are.

use candle_core::{DType, Tensor};

use super::{blend, noised};
use crate::samplers::Result;
use crate::{Denoised, Denoiser, ModelSampling};

/// Where to denoise: 1 is generated, 0 kept.
#[derive(Clone, Debug)]
pub struct DenoiseMask {
    /// Values in 0..=1, [..., h, w] of any size; leading axes are batch items, of videos frames.
    pub mask: Tensor,
    /// Threshold the mask by progress.
    pub differential: Option<Differential>,
}

/// Differential diffusion (Levin and Fried, arXiv 2306.00950): soft regions join the denoising later.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Differential {
    /// Share of the thresholded mask; strictly between 0 and 1 the mask itself has the rest.
    pub strength: f64,
}

impl DenoiseMask {
    /// A denoiser that sees the kept region noised, and predicts it as it is.
    pub(super) fn around<'a>(
        &self,
        inner: &'a mut dyn Denoiser,
        model: &'a ModelSampling,
        (first, last): (f64, f64),
        latent: Tensor,
        noise: Tensor,
    ) -> Result<MaskedDenoiser<'a>> {
        let time = |sigma: f64| f64::from(model.timestep(sigma));
        Ok(MaskedDenoiser {
            inner,
            model,
            mask: fitted(&self.mask, &latent)?,
            differential: self.differential,
            times: (time(first), time(last.max(model.sigma_min()))),
            latent,
            noise,
        })
    }
}

/// The mask resized and repeated to the latent's shape.
fn fitted(mask: &Tensor, latent: &Tensor) -> Result<Tensor, candle_core::Error> {
    let mask = mask.to_device(latent.device())?.to_dtype(DType::F32)?;
    let (&[.., h, w], dims) = (mask.dims(), latent.dims()) else {
        candle_core::bail!("a mask of shape {:?} has no height and width", mask.shape())
    };
    let &[batch, channels, .., height, width] = dims else {
        candle_core::bail!("a latent of shape {:?} cannot be masked", latent.shape())
    };
    let mask = mask.reshape(((), 1, h, w))?;
    let mask = if (h, w) == (height, width) { mask } else { mask.upsample_bilinear2d(height, width, false)? };
    if mask.dim(0)? == 0 {
        candle_core::bail!("the mask is empty")
    }
    let mask = match *dims {
        [_, _, frames, _, _] => {
            // [n, 1, H, W] are the frames of one item.
            interpolate_frames(&mask, frames)?.reshape((1, 1, frames, height, width))?
        }
        [_, _, _, _] => mask,
        _ => candle_core::bail!("a latent of shape {:?} cannot be masked", latent.shape()),
    };
    let items = mask.dim(0)?;
    let mask = Tensor::cat(&vec![&mask; batch.div_ceil(items).max(1)], 0)?.narrow(0, 0, batch)?;
    let mut shape = dims.to_vec();
    shape[1] = channels;
    mask.broadcast_as(shape)?.contiguous()?.to_dtype(latent.dtype())
}

/// Linear interpolation along the first axis, half-pixel centres.
fn interpolate_frames(frames: &Tensor, count: usize) -> Result<Tensor, candle_core::Error> {
    let given = frames.dim(0)?;
    if given == count {
        return Ok(frames.clone());
    }
    let scale = given as f64 / count as f64;
    let frame = |i: usize| {
        let at = ((i as f64 + 0.5) * scale - 0.5).clamp(0.0, (given - 1) as f64);
        let (below, weight) = (at as usize, at.fract());
        let above = (below + 1).min(given - 1);
        crate::lincomb(&[(1.0 - weight, &frames.get(below)?), (weight, &frames.get(above)?)])
    };
    Tensor::stack(&(0..count).map(frame).collect::<Result<Vec<_>, _>>()?, 0)
}

/// See [`DenoiseMask::around`].
pub(super) struct MaskedDenoiser<'a> {
    inner: &'a mut dyn Denoiser,
    model: &'a ModelSampling,
    /// Of the latent's shape.
    mask: Tensor,
    differential: Option<Differential>,
    /// Times of the first and the last level.
    times: (f64, f64),
    latent: Tensor,
    noise: Tensor,
}

impl MaskedDenoiser<'_> {
    fn mask_at(&self, sigma: f64) -> Result<Tensor, candle_core::Error> {
        let Some(Differential { strength }) = self.differential else { return Ok(self.mask.clone()) };
        let (from, to) = self.times;
        let threshold = ((f64::from(self.model.timestep(sigma)) - to) / (from - to)) as f32;
        let binary = self.mask.ge(f64::from(threshold))?.to_dtype(self.mask.dtype())?;
        if strength > 0.0 && strength < 1.0 {
            crate::lincomb(&[(strength, &binary), (1.0 - strength, &self.mask)])
        } else {
            Ok(binary)
        }
    }
}

impl Denoiser for MaskedDenoiser<'_> {
    fn denoise(&mut self, x: &Tensor, sigma: f64, need_uncond: bool) -> Result<Denoised, candle_core::Error> {
        let mask = self.mask_at(sigma)?;
        let kept = noised(self.model, sigma, &self.noise, &self.latent)?;
        let predicted = self.inner.denoise(&blend(x, &kept, &mask)?, sigma, need_uncond)?;
        Ok(Denoised { denoised: blend(&predicted.denoised, &self.latent, &mask)?, uncond: predicted.uncond })
    }
}
