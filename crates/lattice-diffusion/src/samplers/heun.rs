//! Second-order single-step methods of the probability-flow equation.

use candle_core::Tensor;

use super::math::{derivative, euler_step};
use super::{Churn, Result, Sampler, SamplerRun};
use crate::lincomb;

/// Heun's method (arXiv 2206.00364, algorithm 1). Two model calls per step, one in a step to 0.
#[derive(Clone, Copy, Debug, Default)]
pub struct Heun {
    /// Added noise.
    pub churn: Churn,
}

impl Sampler for Heun {
    fn sample(&self, run: &mut SamplerRun<'_>, mut x: Tensor) -> Result<Tensor> {
        for (i, (s, s1)) in run.steps().into_iter().enumerate() {
            let (raised, s) = self.churn.apply(run, x, s)?;
            let denoised = run.denoise(&raised, s)?;
            run.report(i, s, &raised, &denoised)?;
            if s1 == 0.0 {
                x = euler_step(&raised, &denoised, s, s1)?;
                continue;
            }
            let d = derivative(&raised, &denoised, s)?;
            let x2 = lincomb(&[(1.0, &raised), (s1 - s, &d)])?;
            let denoised2 = run.denoise(&x2, s1)?;
            let d2 = derivative(&x2, &denoised2, s1)?;
            let half = (s1 - s) / 2.0;
            x = lincomb(&[(1.0, &raised), (half, &d), (half, &d2)])?;
        }
        Ok(x)
    }
}

/// Heun++ (Carzit): derivatives at up to three levels ahead, weighted by their level. Up to three model calls per step.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeunPp2 {
    /// Added noise.
    pub churn: Churn,
}

impl Sampler for HeunPp2 {
    fn sample(&self, run: &mut SamplerRun<'_>, mut x: Tensor) -> Result<Tensor> {
        let sigmas = run.sigmas().to_vec();
        let (Some(&first), Some(&end)) = (sigmas.first(), sigmas.last()) else { return Ok(x) };
        for (i, (s, s1)) in run.steps().into_iter().enumerate() {
            // Drawn whether it is used or not, as the stream goes on.
            let noise = run.initial_stream_noise(&x)?;
            let (raised, s) = self.churn.apply_noise(run, x, s, &noise)?;
            let denoised = run.denoise(&raised, s)?;
            run.report(i, s, &raised, &denoised)?;
            let h = s1 - s;
            let s2 = match sigmas.get(i + 2) {
                Some(&s2) if s1 != end => s2,
                _ => {
                    x = euler_step(&raised, &denoised, s, s1)?;
                    continue;
                }
            };
            let d = derivative(&raised, &denoised, s)?;
            let x2 = lincomb(&[(1.0, &raised), (h, &d)])?;
            let denoised2 = run.denoise(&x2, s1)?;
            let d2 = derivative(&x2, &denoised2, s1)?;
            if s2 == end {
                let w2 = s1 / (2.0 * first);
                x = lincomb(&[(1.0, &raised), ((1.0 - w2) * h, &d), (w2 * h, &d2)])?;
                continue;
            }
            let x3 = lincomb(&[(1.0, &x2), (s2 - s1, &d2)])?;
            let denoised3 = run.denoise(&x3, s2)?;
            let d3 = derivative(&x3, &denoised3, s2)?;
            let (w2, w3) = (s1 / (3.0 * first), s2 / (3.0 * first));
            let w1 = 1.0 - w2 - w3;
            x = lincomb(&[(1.0, &raised), (w1 * h, &d), (w2 * h, &d2), (w3 * h, &d3)])?;
        }
        Ok(x)
    }
}

/// DPM-Solver-2 in sigma (arXiv 2206.00927): the derivative at the geometric middle. Two model calls per step.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dpm2 {
    /// Added noise.
    pub churn: Churn,
}

impl Sampler for Dpm2 {
    fn sample(&self, run: &mut SamplerRun<'_>, mut x: Tensor) -> Result<Tensor> {
        for (i, (s, s1)) in run.steps().into_iter().enumerate() {
            let (raised, s) = self.churn.apply(run, x, s)?;
            let denoised = run.denoise(&raised, s)?;
            run.report(i, s, &raised, &denoised)?;
            if s1 == 0.0 {
                x = euler_step(&raised, &denoised, s, s1)?;
                continue;
            }
            let middle = f64::midpoint(s.ln(), s1.ln()).exp();
            let x2 = euler_step(&raised, &denoised, s, middle)?;
            let denoised2 = run.denoise(&x2, middle)?;
            let d2 = derivative(&x2, &denoised2, middle)?;
            x = lincomb(&[(1.0, &raised), (s1 - s, &d2)])?;
        }
        Ok(x)
    }

    fn drops_penultimate_sigma(&self) -> bool {
        true
    }
}
