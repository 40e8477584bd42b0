//! Ancestral sampling: a deterministic step past the target, then noise up to it.

use candle_core::Tensor;

use super::math::{ancestral, derivative, euler_step, flow_ancestral};
use super::{Result, Sampler, SamplerRun};
use crate::lincomb;

/// Euler steps with ancestral noise. One model call per step.
#[derive(Clone, Copy, Debug)]
pub struct EulerAncestral {
    /// Share of stochasticity.
    pub eta: f64,
    /// Factor of the noise.
    pub s_noise: f64,
}

/// DPM-Solver-2 steps (arXiv 2206.00927) with ancestral noise. Two model calls per step.
#[derive(Clone, Copy, Debug)]
pub struct Dpm2Ancestral {
    /// Share of stochasticity.
    pub eta: f64,
    /// Factor of the noise.
    pub s_noise: f64,
}

impl Default for EulerAncestral {
    fn default() -> Self {
        Self { eta: 1.0, s_noise: 1.0 }
    }
}

impl Default for Dpm2Ancestral {
    fn default() -> Self {
        Self { eta: 1.0, s_noise: 1.0 }
    }
}

impl Sampler for EulerAncestral {
    fn sample(&self, run: &mut SamplerRun<'_>, mut x: Tensor) -> Result<Tensor> {
        let flow = run.model().is_flow();
        for (i, (s, s1)) in run.steps().into_iter().enumerate() {
            let denoised = run.denoise(&x, s)?;
            run.report(i, s, &x, &denoised)?;
            if flow {
                if s1 == 0.0 {
                    x = denoised;
                    continue;
                }
                let step = flow_ancestral(s, s1, self.eta);
                let ratio = step.down / s;
                if self.eta > 0.0 {
                    let noise = run.step_noise(&x)?;
                    let scale = step.rescale;
                    x = lincomb(&[
                        (scale * ratio, &x),
                        (scale * (1.0 - ratio), &denoised),
                        (self.s_noise * step.up, &noise),
                    ])?;
                } else {
                    x = euler_step(&x, &denoised, s, step.down)?;
                }
                continue;
            }
            let (down, up) = ancestral(s, s1, self.eta);
            if down == 0.0 {
                x = denoised;
                continue;
            }
            let (ratio, noise) = (down / s, run.step_noise(&x)?);
            x = lincomb(&[(ratio, &x), (1.0 - ratio, &denoised), (self.s_noise * up, &noise)])?;
        }
        Ok(x)
    }
}

impl Sampler for Dpm2Ancestral {
    fn sample(&self, run: &mut SamplerRun<'_>, mut x: Tensor) -> Result<Tensor> {
        let flow = run.model().is_flow();
        for (i, (s, s1)) in run.steps().into_iter().enumerate() {
            let denoised = run.denoise(&x, s)?;
            run.report(i, s, &x, &denoised)?;
            let (down, rescale, up) = if flow {
                let step = flow_ancestral(s, s1, self.eta);
                (step.down, step.rescale, step.up)
            } else {
                let (down, up) = ancestral(s, s1, self.eta);
                (down, 1.0, up)
            };
            if down == 0.0 {
                x = euler_step(&x, &denoised, s, down)?;
                continue;
            }
            let middle = f64::midpoint(s.ln(), down.ln()).exp();
            let x2 = euler_step(&x, &denoised, s, middle)?;
            let denoised2 = run.denoise(&x2, middle)?;
            let d2 = derivative(&x2, &denoised2, middle)?;
            let noise = run.step_noise(&x)?;
            x = lincomb(&[(rescale, &x), (rescale * (down - s), &d2), (self.s_noise * up, &noise)])?;
        }
        Ok(x)
    }

    fn drops_penultimate_sigma(&self) -> bool {
        true
    }
}
