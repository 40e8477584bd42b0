//! Operations on latents that nodes hand around.

use candle_core::{Result, Tensor, bail};
use lattice_media::filter;

/// An operation on a latent `[B, C, H, W]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operation {
    /// Compresses the greatest channel norms (E. Reinhard et al., "Photographic tone reproduction", 2002), which strong
    /// guidance makes too great.
    TonemapReinhard {
        /// Scales the norm that counts as white.
        multiplier: f64,
    },
    /// Sharpens the directions of the channel vectors; see [`filter::sharpen`].
    Sharpen {
        /// Radius of the blur that is taken off, in cells.
        radius: usize,
        /// Width of the blur, relative to its radius.
        sigma: f64,
        /// Strength.
        alpha: f64,
    },
}

impl Operation {
    /// The latent after the operation.
    ///
    /// # Errors
    /// If the latent is no batch of planes, or smaller than the radius.
    pub fn apply(&self, latent: &Tensor) -> Result<Tensor> {
        match *self {
            Self::TonemapReinhard { multiplier } => tonemap(latent, multiplier),
            Self::Sharpen { radius, sigma, alpha } => {
                let norm = (channel_norm(latent)? + 1e-6)?;
                let unit = latent.broadcast_div(&norm)?;
                filter::sharpen(&unit, radius, sigma, alpha)?.broadcast_mul(&norm)
            }
        }
    }
}

/// Length of the channel vectors, the channel axis kept.
fn channel_norm(latent: &Tensor) -> Result<Tensor> {
    if latent.rank() < 3 {
        bail!("a latent has batch, channels and cells, not the shape {:?}", latent.dims())
    }
    latent.sqr()?.sum_keepdim(1)?.sqrt()
}

fn tonemap(latent: &Tensor, multiplier: f64) -> Result<Tensor> {
    let norm = (channel_norm(latent)? + 1e-10)?;
    let unit = latent.broadcast_div(&norm)?;
    let flat = norm.flatten_from(1)?;
    // Means and deviations (unbiased) of the norms, per item.
    let mean = flat.mean_keepdim(1)?;
    let std = flat.var_keepdim(1)?.sqrt()?;
    let mut shape = vec![1; latent.rank()];
    shape[0] = latent.dim(0)?;
    let top = (((std * 5.0)? + mean)? * multiplier)?.reshape(shape)?;
    let scaled = norm.broadcast_div(&top)?;
    let compressed = (&scaled / (&scaled + 1.0)?)?;
    unit.broadcast_mul(&compressed.broadcast_mul(&top)?)
}
