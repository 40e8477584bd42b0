//! Multistep solvers of the reverse-time stochastic equation on the denoised prediction (SDE-DPM-Solver++, Lu et al.,
//! arXiv 2211.01095, appendix), second and third order, with Brownian noise.

use candle_core::Tensor;

use super::math::alpha;
use super::{Result, Sampler, SamplerRun};
use crate::lincomb;

/// How the second-order term of [`Dpmpp2mSde`] is weighted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SdeSolver {
    /// Midpoint rule.
    #[default]
    Midpoint,
    /// Heun's rule.
    Heun,
}

/// DPM-Solver++(2M) SDE. One model call per step.
#[derive(Clone, Copy, Debug)]
pub struct Dpmpp2mSde {
    /// Share of stochasticity.
    pub eta: f64,
    /// Factor of the noise.
    pub s_noise: f64,
    /// Second-order rule.
    pub solver: SdeSolver,
}

/// DPM-Solver++(3M) SDE. One model call per step.
#[derive(Clone, Copy, Debug)]
pub struct Dpmpp3mSde {
    /// Share of stochasticity.
    pub eta: f64,
    /// Factor of the noise.
    pub s_noise: f64,
}

impl Default for Dpmpp2mSde {
    fn default() -> Self {
        Self { eta: 1.0, s_noise: 1.0, solver: SdeSolver::Midpoint }
    }
}

impl Default for Dpmpp3mSde {
    fn default() -> Self {
        Self { eta: 1.0, s_noise: 1.0 }
    }
}

/// The parts of a step that both orders share.
struct SdeStep {
    /// Step in lambda.
    h: f64,
    /// h (1 + eta).
    k: f64,
    /// Scale of the clean sample at the target.
    alpha: f64,
    /// Factor of x.
    keep: f64,
    /// Factor of the drawn noise.
    noise: f64,
}

impl SdeStep {
    fn new(run: &SamplerRun<'_>, s: f64, s1: f64, eta: f64, s_noise: f64) -> Self {
        let model = run.model();
        let h = model.half_log_snr(s1) - model.half_log_snr(s);
        let noise =
            if eta > 0.0 && s_noise > 0.0 { s1 * (-(-2.0 * h * eta).exp_m1()).sqrt() * s_noise } else { 0.0 };
        Self { h, k: h * (eta + 1.0), alpha: alpha(model, s1), keep: s1 / s * (-h * eta).exp(), noise }
    }

    /// Weighted sum with the step's own terms and noise.
    fn finish(
        &self,
        run: &mut SamplerRun<'_>,
        (s, s1): (f64, f64),
        x: &Tensor,
        denoised: (f64, &Tensor),
        extra: &[(f64, &Tensor)],
    ) -> Result<Tensor> {
        let base = -self.alpha * (-self.k).exp_m1();
        let mut terms = vec![(self.keep, x), (base + denoised.0, denoised.1)];
        terms.extend(extra);
        if self.noise == 0.0 {
            return Ok(lincomb(&terms)?);
        }
        let noise = run.brownian_noise(x, s, s1)?;
        terms.push((self.noise, &noise));
        Ok(lincomb(&terms)?)
    }
}

impl Sampler for Dpmpp2mSde {
    fn sample(&self, run: &mut SamplerRun<'_>, mut x: Tensor) -> Result<Tensor> {
        let mut old: Option<(Tensor, f64)> = None;
        for (i, (s, s1)) in run.steps_with_finite_snr().into_iter().enumerate() {
            let denoised = run.denoise(&x, s)?;
            run.report(i, s, &x, &denoised)?;
            if s1 == 0.0 {
                x = denoised;
                continue;
            }
            let step = SdeStep::new(run, s, s1, self.eta, self.s_noise);
            x = match &old {
                None => step.finish(run, (s, s1), &x, (0.0, &denoised), &[])?,
                Some((old_denoised, h_last)) => {
                    let r = h_last / step.h;
                    let grown = (-step.k).exp_m1();
                    let weight = match self.solver {
                        SdeSolver::Midpoint => -0.5 * step.alpha * grown / r,
                        SdeSolver::Heun => step.alpha * (grown / step.k + 1.0) / r,
                    };
                    step.finish(run, (s, s1), &x, (weight, &denoised), &[(-weight, old_denoised)])?
                }
            };
            old = Some((denoised, step.h));
        }
        Ok(x)
    }
}

impl Sampler for Dpmpp3mSde {
    fn sample(&self, run: &mut SamplerRun<'_>, mut x: Tensor) -> Result<Tensor> {
        let (mut old, mut older): (Option<(Tensor, f64)>, Option<(Tensor, f64)>) = (None, None);
        for (i, (s, s1)) in run.steps_with_finite_snr().into_iter().enumerate() {
            let denoised = run.denoise(&x, s)?;
            run.report(i, s, &x, &denoised)?;
            if s1 == 0.0 {
                x = denoised;
                continue;
            }
            let step = SdeStep::new(run, s, s1, self.eta, self.s_noise);
            let phi2 = (-step.k).exp_m1() / step.k + 1.0;
            x = match (&old, &older) {
                (Some((d1, h1)), Some((d2, h2))) => {
                    let phi3 = phi2 / step.k - 0.5;
                    let (r0, r1) = (h1 / step.h, h2 / step.h);
                    // e0 = (D - D1)/r0, e1 = (D1 - D2)/r1 are divided differences; x gains p e0 + q e1.
                    let spread = r0 + r1;
                    let p = step.alpha * (phi2 * (1.0 + r0 / spread) - phi3 / spread);
                    let q = step.alpha * (-phi2 * r0 / spread + phi3 / spread);
                    let extra = [(q / r1 - p / r0, d1), (-q / r1, d2)];
                    step.finish(run, (s, s1), &x, (p / r0, &denoised), &extra)?
                }
                (Some((d1, h1)), None) => {
                    let weight = step.alpha * phi2 * step.h / h1;
                    step.finish(run, (s, s1), &x, (weight, &denoised), &[(-weight, d1)])?
                }
                _ => step.finish(run, (s, s1), &x, (0.0, &denoised), &[])?,
            };
            older = old.replace((denoised, step.h));
        }
        Ok(x)
    }
}
