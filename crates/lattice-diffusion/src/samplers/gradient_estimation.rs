//! Euler's method with the derivative extrapolated from the last two ("Interpreting and Improving Diffusion Models from
//! an Optimization Perspective", arXiv 2306.04848).

use candle_core::Tensor;

use super::math::derivative;
use super::{Result, Sampler, SamplerRun};
use crate::lincomb;

/// Gradient estimation. One model call per step.
#[derive(Clone, Copy, Debug)]
pub struct GradientEstimation {
    /// Extrapolation: 1 is Euler's method.
    pub gamma: f64,
    /// Move along the unconditional prediction (CFG++, arXiv 2406.08070).
    pub cfg_pp: bool,
}

impl Default for GradientEstimation {
    fn default() -> Self {
        Self { gamma: 2.0, cfg_pp: false }
    }
}

impl Sampler for GradientEstimation {
    fn sample(&self, run: &mut SamplerRun<'_>, mut x: Tensor) -> Result<Tensor> {
        let mut old: Option<Tensor> = None;
        for (i, (s, s1)) in run.steps().into_iter().enumerate() {
            let (denoised, from) = if self.cfg_pp {
                run.denoise_both(&x, s)?
            } else {
                let denoised = run.denoise(&x, s)?;
                (denoised.clone(), denoised)
            };
            run.report(i, s, &x, &denoised)?;
            let d = derivative(&x, &from, s)?;
            if s1 == 0.0 {
                x = denoised;
            } else {
                let (start, step) = if self.cfg_pp { (&denoised, s1) } else { (&x, s1 - s) };
                let correction = (self.gamma - 1.0) * (s1 - s);
                x = match &old {
                    None => lincomb(&[(1.0, start), (step, &d)])?,
                    Some(old) => lincomb(&[(1.0, start), (step + correction, &d), (-correction, old)])?,
                };
            }
            old = Some(d);
        }
        Ok(x)
    }
}
