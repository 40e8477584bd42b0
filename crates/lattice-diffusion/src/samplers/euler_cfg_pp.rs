//! Euler's method under CFG++ (Chung et al., arXiv 2406.08070): jump to the guided prediction, put noise back along the
//! unconditional one.

use candle_core::Tensor;

use super::math::{alpha, ancestral};
use super::{Result, Sampler, SamplerRun};
use crate::lincomb;

/// Euler CFG++, ancestral with eta above 0. One model call per step.
#[derive(Clone, Copy, Debug)]
pub struct EulerAncestralCfgPp {
    /// Share of stochasticity.
    pub eta: f64,
    /// Factor of the noise.
    pub s_noise: f64,
}

impl Default for EulerAncestralCfgPp {
    fn default() -> Self {
        Self { eta: 1.0, s_noise: 1.0 }
    }
}

impl EulerAncestralCfgPp {
    /// Without noise.
    pub fn deterministic() -> Self {
        Self { eta: 0.0, s_noise: 0.0 }
    }
}

impl Sampler for EulerAncestralCfgPp {
    fn sample(&self, run: &mut SamplerRun<'_>, mut x: Tensor) -> Result<Tensor> {
        let model = run.model();
        for (i, (s, s1)) in run.steps().into_iter().enumerate() {
            let (denoised, uncond) = run.denoise_both(&x, s)?;
            run.report(i, s, &x, &denoised)?;
            if s1 == 0.0 {
                x = denoised;
                continue;
            }
            // At sigma 1 of a flow model alpha is 0 and s/alpha infinite; both are used as they are.
            let (of_clean, of_clean1) = (alpha(model, s), alpha(model, s1));
            let (down, up) = ancestral(s / of_clean, s1 / of_clean1, self.eta);
            let down = down * of_clean1;
            let terms = [(down / s, &x), (-down * of_clean / s, &uncond), (of_clean1, &denoised)];
            x = if self.eta > 0.0 && self.s_noise > 0.0 {
                let noise = run.step_noise(&x)?;
                let [a, b, c] = terms;
                lincomb(&[a, b, c, (of_clean1 * self.s_noise * up, &noise)])?
            } else {
                lincomb(&terms)?
            };
        }
        Ok(x)
    }
}

/// The alternative rule: Euler along (x - 2 D + U)/s. One model call per step.
#[derive(Clone, Copy, Debug, Default)]
pub struct EulerCfgPpAlternative;

impl Sampler for EulerCfgPpAlternative {
    fn sample(&self, run: &mut SamplerRun<'_>, mut x: Tensor) -> Result<Tensor> {
        for (i, (s, s1)) in run.steps().into_iter().enumerate() {
            let (denoised, uncond) = run.denoise_both(&x, s)?;
            run.report(i, s, &x, &denoised)?;
            let step = (s1 - s) / s;
            x = lincomb(&[(1.0 + step, &x), (-2.0 * step, &denoised), (step, &uncond)])?;
        }
        Ok(x)
    }
}
