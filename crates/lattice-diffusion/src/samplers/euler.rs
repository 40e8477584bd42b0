//! Euler's method.

use candle_core::Tensor;

use super::math::euler_step;
use super::{Result, Sampler, SamplerRun};
use crate::lincomb;

/// Stochastic churn (Karras et al., arXiv 2206.00364, algorithm 2): noise added before a step, removed by it.
#[derive(Clone, Copy, Debug)]
pub struct Churn {
    /// Total amount; 0 is none.
    pub amount: f64,
    /// Lowest level that is churned.
    pub sigma_min: f64,
    /// Highest level that is churned.
    pub sigma_max: f64,
    /// Factor of the noise.
    pub noise: f64,
}

impl Default for Churn {
    fn default() -> Self {
        Self { amount: 0.0, sigma_min: 0.0, sigma_max: f64::INFINITY, noise: 1.0 }
    }
}

impl Churn {
    /// The sample raised to a higher level, and that level.
    pub(super) fn apply(&self, run: &mut SamplerRun<'_>, x: Tensor, s: f64) -> Result<(Tensor, f64)> {
        if !(self.amount > 0.0 && (self.sigma_min..=self.sigma_max).contains(&s)) {
            return Ok((x, s));
        }
        let noise = run.initial_stream_noise(&x)?;
        self.apply_noise(run, x, s, &noise)
    }

    /// As [`Churn::apply`] with noise that was drawn already.
    pub(super) fn apply_noise(
        &self,
        run: &SamplerRun<'_>,
        x: Tensor,
        s: f64,
        noise: &Tensor,
    ) -> Result<(Tensor, f64)> {
        let gamma = (self.amount / run.step_count() as f64).min(std::f64::consts::SQRT_2 - 1.0);
        if !(gamma > 0.0 && (self.sigma_min..=self.sigma_max).contains(&s)) {
            return Ok((x, s));
        }
        let raised = s * (gamma + 1.0);
        let added = self.noise * (raised * raised - s * s).sqrt();
        Ok((lincomb(&[(1.0, &x), (added, noise)])?, raised))
    }
}

/// Euler's method (arXiv 2206.00364, algorithm 2 without its correction). One model call per step.
#[derive(Clone, Copy, Debug, Default)]
pub struct Euler {
    /// Added noise.
    pub churn: Churn,
}

impl Sampler for Euler {
    fn sample(&self, run: &mut SamplerRun<'_>, mut x: Tensor) -> Result<Tensor> {
        for (i, (s, s1)) in run.steps().into_iter().enumerate() {
            let (raised, s) = self.churn.apply(run, x, s)?;
            let denoised = run.denoise(&raised, s)?;
            run.report(i, s, &raised, &denoised)?;
            x = euler_step(&raised, &denoised, s, s1)?;
        }
        Ok(x)
    }
}

/// DDIM with eta 0 (Song et al., arXiv 2010.02502), which in sigma is Euler's method; only masked regions are noised
/// otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ddim;

impl Sampler for Ddim {
    fn sample(&self, run: &mut SamplerRun<'_>, x: Tensor) -> Result<Tensor> {
        Euler::default().sample(run, x)
    }

    fn redraws_mask_noise(&self) -> bool {
        true
    }
}
