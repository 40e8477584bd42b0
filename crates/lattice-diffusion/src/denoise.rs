//! The seam between samplers and guidance: a sampler sees only a [`Denoiser`].

use candle_core::{Result, Tensor};

/// One guided prediction.
#[derive(Clone, Debug)]
pub struct Denoised {
    /// Guided denoised prediction D, shape of x.
    pub denoised: Tensor,
    /// Unconditional denoised prediction U, where one was evaluated (CFG++ samplers ask for it).
    pub uncond: Option<Tensor>,
}

/// Predicts the clean sample from a noisy one.
pub trait Denoiser {
    /// D(x, sigma) for x [B, ...]. With `need_uncond` the unconditional branch is evaluated even at cfg 1.
    fn denoise(&mut self, x: &Tensor, sigma: f64, need_uncond: bool) -> Result<Denoised>;
}
