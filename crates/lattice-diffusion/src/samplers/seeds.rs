//! Stochastic explicit exponential derivative-free solvers (SEEDS, Gonzalez et al., arXiv 2305.14267).

use candle_core::Tensor;

use super::math::alpha;
use super::{Result, Sampler, SamplerRun};
use crate::lincomb;

/// SEEDS-2. Two model calls per step.
#[derive(Clone, Copy, Debug)]
pub struct Seeds2 {
    /// Share of stochasticity.
    pub eta: f64,
    /// Factor of the noise.
    pub s_noise: f64,
    /// Where the middle evaluation lies, as a share of the step in lambda.
    pub r: f64,
}

/// SEEDS-3. Three model calls per step.
#[derive(Clone, Copy, Debug)]
pub struct Seeds3 {
    /// Share of stochasticity.
    pub eta: f64,
    /// Factor of the noise.
    pub s_noise: f64,
    /// First middle evaluation.
    pub r1: f64,
    /// Second middle evaluation.
    pub r2: f64,
}

impl Default for Seeds2 {
    fn default() -> Self {
        Self { eta: 1.0, s_noise: 1.0, r: 0.5 }
    }
}

impl Default for Seeds3 {
    fn default() -> Self {
        Self { eta: 1.0, s_noise: 1.0, r1: 1.0 / 3.0, r2: 2.0 / 3.0 }
    }
}

/// Noise of a step as a path: at share r of the step it has been diffused by e^(r h eta), and grows by fresh draws.
struct NoisePath {
    h: f64,
    eta: f64,
    active: bool,
    at: f64,
    value: Option<Tensor>,
}

impl NoisePath {
    fn new(h: f64, eta: f64, s_noise: f64) -> Self {
        Self { h, eta, active: eta > 0.0 && s_noise > 0.0, at: 0.0, value: None }
    }

    /// The noise at share `r`, of unit scale at the full step.
    fn advance(&mut self, run: &mut SamplerRun<'_>, like: &Tensor, r: f64) -> Result<Option<&Tensor>> {
        if self.active {
            let fresh = run.step_noise(like)?;
            let back = (self.at - r) * self.h * self.eta;
            let scale = (-(2.0 * back).exp_m1()).sqrt();
            self.value = Some(match &self.value {
                None => lincomb(&[(scale, &fresh)])?,
                Some(old) => lincomb(&[(back.exp(), old), (scale, &fresh)])?,
            });
            self.at = r;
        }
        Ok(self.value.as_ref())
    }
}

/// (to/s) e^(-r h eta) x + sum of terms + N to s_noise.
fn stage(
    x: &Tensor,
    keep: f64,
    terms: &[(f64, &Tensor)],
    noise: Option<&Tensor>,
    noise_scale: f64,
) -> Result<Tensor> {
    let mut all = vec![(keep, x)];
    all.extend(terms);
    all.extend(noise.map(|noise| (noise_scale, noise)));
    Ok(lincomb(&all)?)
}

impl Sampler for Seeds2 {
    fn sample(&self, run: &mut SamplerRun<'_>, mut x: Tensor) -> Result<Tensor> {
        let model = run.model();
        for (i, (s, s1)) in run.steps_with_finite_snr().into_iter().enumerate() {
            let denoised = run.denoise(&x, s)?;
            run.report(i, s, &x, &denoised)?;
            if s1 == 0.0 {
                x = denoised;
                continue;
            }
            let lambda = model.half_log_snr(s);
            let h = model.half_log_snr(s1) - lambda;
            let k = h * (self.eta + 1.0);
            let middle = model.sigma_of_half_log_snr(lambda + self.r * h);
            let mut path = NoisePath::new(h, self.eta, self.s_noise);

            let gain = -alpha(model, middle) * (-self.r * k).exp_m1();
            let noise = path.advance(run, &x, self.r)?;
            let keep = middle / s * (-self.r * h * self.eta).exp();
            let x2 = stage(&x, keep, &[(gain, &denoised)], noise, middle * self.s_noise)?;
            let denoised2 = run.denoise(&x2, middle)?;

            let gain = -alpha(model, s1) * (-k).exp_m1();
            let share = 1.0 / (2.0 * self.r);
            let noise = path.advance(run, &x, 1.0)?;
            let terms = [(gain * (1.0 - share), &denoised), (gain * share, &denoised2)];
            x = stage(&x, s1 / s * (-h * self.eta).exp(), &terms, noise, s1 * self.s_noise)?;
        }
        Ok(x)
    }
}

impl Sampler for Seeds3 {
    fn sample(&self, run: &mut SamplerRun<'_>, mut x: Tensor) -> Result<Tensor> {
        let model = run.model();
        let (r1, r2) = (self.r1, self.r2);
        for (i, (s, s1)) in run.steps_with_finite_snr().into_iter().enumerate() {
            let denoised = run.denoise(&x, s)?;
            run.report(i, s, &x, &denoised)?;
            if s1 == 0.0 {
                x = denoised;
                continue;
            }
            let lambda = model.half_log_snr(s);
            let h = model.half_log_snr(s1) - lambda;
            let k = h * (self.eta + 1.0);
            let level = |r: f64| model.sigma_of_half_log_snr(lambda + r * h);
            let (middle1, middle2) = (level(r1), level(r2));
            let keep = |to: f64, r: f64| to / s * (-r * h * self.eta).exp();
            let mut path = NoisePath::new(h, self.eta, self.s_noise);

            let gain = -alpha(model, middle1) * (-r1 * k).exp_m1();
            let noise = path.advance(run, &x, r1)?;
            let x2 = stage(&x, keep(middle1, r1), &[(gain, &denoised)], noise, middle1 * self.s_noise)?;
            let denoised2 = run.denoise(&x2, middle1)?;

            let grown = (-r2 * k).exp_m1();
            let a2 = r2 / r1 * ((grown + r2 * k) / (-r2 * k));
            let a1 = grown - a2;
            let scale = -alpha(model, middle2);
            let noise = path.advance(run, &x, r2)?;
            let terms = [(scale * a1, &denoised), (scale * a2, &denoised2)];
            let x3 = stage(&x, keep(middle2, r2), &terms, noise, middle2 * self.s_noise)?;
            let denoised3 = run.denoise(&x3, middle2)?;

            let grown = (-k).exp_m1();
            let b3 = (grown + k) / -k / r2;
            let b1 = grown - b3;
            let scale = -alpha(model, s1);
            let noise = path.advance(run, &x, 1.0)?;
            let terms = [(scale * b1, &denoised), (scale * b3, &denoised3)];
            x = stage(&x, keep(s1, 1.0), &terms, noise, s1 * self.s_noise)?;
        }
        Ok(x)
    }
}
