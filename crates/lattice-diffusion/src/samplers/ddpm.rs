//! The original sampler of denoising diffusion.

use candle_core::Tensor;

use super::{Result, Sampler, SamplerRun};
use crate::lincomb;

/// DDPM (Ho et al., arXiv 2006.11239, algorithm 2). One model call per step.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ddpm;

impl Sampler for Ddpm {
    fn sample(&self, run: &mut SamplerRun<'_>, mut x: Tensor) -> Result<Tensor> {
        for (i, (s, s1)) in run.steps().into_iter().enumerate() {
            let denoised = run.denoise(&x, s)?;
            run.report(i, s, &x, &denoised)?;
            // In the variance-preserving sample z = x sqrt(alpha_bar), with predicted noise (x - D)/s.
            let alpha_bar = 1.0 / (s * s + 1.0);
            let alpha_bar1 = 1.0 / (s1 * s1 + 1.0);
            let q = alpha_bar / alpha_bar1;
            let of_noise = (1.0 - q) / (1.0 - alpha_bar).sqrt() / s;
            let scale = (s1 * s1 + 1.0).sqrt() / q.sqrt();
            let of_x = scale * (alpha_bar.sqrt() - of_noise);
            x = if s1 > 0.0 {
                let noise = run.step_noise(&x)?;
                let up = ((1.0 - q) * (1.0 - alpha_bar1) / (1.0 - alpha_bar)).sqrt();
                lincomb(&[(of_x, &x), (scale * of_noise, &denoised), (up * (s1 * s1 + 1.0).sqrt(), &noise)])?
            } else {
                lincomb(&[(of_x, &x), (scale * of_noise, &denoised)])?
            };
        }
        Ok(x)
    }
}
