//! Schedules that are curves of their own parameters.

use super::beta::beta_schedule;
use super::linspace::linspace;
use super::{ScheduleError, checked_steps};
use crate::ModelSampling;
use crate::model_sampling::ltxv_shift;

/// The levels as f32, then 0.
pub(super) fn terminated(levels: impl Iterator<Item = f64>) -> Vec<f32> {
    levels.map(|s| s as f32).chain([0.0]).collect()
}

/// Levels whose 1/rho-th powers are equally spaced (Karras et al., arXiv 2206.00364, equation 5).
pub fn karras(steps: usize, sigma_min: f64, sigma_max: f64, rho: f64) -> Result<Vec<f32>, ScheduleError> {
    if rho == 0.0 || rho.is_nan() {
        return Err(ScheduleError::Parameter { name: "rho", value: rho });
    }
    let (from, to) = (sigma_max.powf(1.0 / rho), sigma_min.powf(1.0 / rho));
    let (start, span) = (from as f32, (to - from) as f32);
    let ramp = linspace(0.0, 1.0, checked_steps(steps, 0)?);
    Ok(terminated(ramp.map(|w| f64::from(start + w * span).powf(rho))))
}

/// Levels whose logarithms are equally spaced.
pub fn exponential(steps: usize, sigma_min: f64, sigma_max: f64) -> Result<Vec<f32>, ScheduleError> {
    let steps = checked_steps(steps, 0)?;
    let logs = linspace(sigma_max.ln() as f32, sigma_min.ln() as f32, steps);
    Ok(terminated(logs.map(|log| f64::from(log).exp())))
}

/// Levels whose logarithms follow a power of the step.
pub fn polyexponential(
    steps: usize,
    sigma_min: f64,
    sigma_max: f64,
    rho: f64,
) -> Result<Vec<f32>, ScheduleError> {
    let (min, max) = (sigma_min.ln(), sigma_max.ln());
    let ramp = linspace(1.0, 0.0, checked_steps(steps, 0)?);
    let (span, min) = ((max - min) as f32, min as f32);
    let power = |w: f32| f64::from(w).powf(rho) as f32;
    Ok(terminated(ramp.map(|w| f64::from(power(w) * span + min).exp())))
}

/// Quantiles of a Laplace distribution of ln(sigma) (arXiv 2407.03297), within the range. It does not end in 0.
pub fn laplace(
    steps: usize,
    sigma_min: f64,
    sigma_max: f64,
    mu: f64,
    beta: f64,
) -> Result<Vec<f32>, ScheduleError> {
    const EPSILON: f64 = 1e-5;
    let quantile = |x: f32| {
        let side = 0.5 - f64::from(x);
        let sign = if side == 0.0 { 0.0 } else { side.signum() };
        let log = mu - beta * sign * (1.0 - 2.0 * side.abs() + EPSILON).ln();
        log.exp().max(sigma_min).min(sigma_max) as f32
    };
    Ok(linspace(0.0, 1.0, checked_steps(steps, 0)?).map(quantile).collect())
}

/// Levels of the continuous variance-preserving process (Song et al., arXiv 2011.13456).
pub fn vp(steps: usize, beta_d: f64, beta_min: f64, eps_s: f64) -> Result<Vec<f32>, ScheduleError> {
    let level = |t: f64| (beta_d * t * t / 2.0 + beta_min * t).exp_m1().sqrt();
    let times = linspace(1.0, eps_s as f32, checked_steps(steps, 0)?);
    Ok(terminated(times.map(|t| level(f64::from(t)))))
}

/// Quantiles of a beta distribution over the model's table (arXiv 2407.12173).
pub fn beta_sampling(
    model: &ModelSampling,
    steps: usize,
    alpha: f64,
    beta: f64,
) -> Result<Vec<f32>, ScheduleError> {
    beta_schedule(model, checked_steps(steps, 0)?, alpha, beta)
}

/// The ten times that SD-Turbo was distilled to, or the later ones of them.
pub fn sd_turbo(model: &ModelSampling, steps: usize, denoise: f64) -> Result<Vec<f32>, ScheduleError> {
    if denoise.is_nan() {
        return Err(ScheduleError::Parameter { name: "denoise", value: denoise });
    }
    let skipped = 10usize.saturating_sub((10.0 * denoise) as usize);
    let times = (1..=10).rev().map(|k| f64::from(100 * k - 1)).skip(skipped).take(steps);
    Ok(terminated(times.map(|t| model.sigma(t))))
}

/// Parameters of [`ltxv`].
#[derive(Clone, Copy, Debug)]
pub struct Ltxv {
    /// Shift at 4096 tokens.
    pub max_shift: f64,
    /// Shift at 1024 tokens.
    pub base_shift: f64,
    /// Stretch so that the last level above 0 is `terminal`.
    pub stretch: bool,
    /// Last level above 0.
    pub terminal: f64,
    /// Tokens of the latent: the product of its frames, height and width.
    pub tokens: usize,
}

impl Ltxv {
    /// Tokens where no latent is given.
    pub const DEFAULT_TOKENS: usize = 4096;
}

/// The schedule of LTX-Video: equal distances under a shift that grows with the number of tokens.
pub fn ltxv(steps: usize, settings: &Ltxv) -> Result<Vec<f32>, ScheduleError> {
    let steps = checked_steps(steps, 1)?;
    // In f32, as the stretching divides differences from 1 that only f32 makes other than zero.
    let scale = ltxv_shift(settings.tokens, settings.base_shift, settings.max_shift).exp() as f32;
    let shifted = |u: f32| {
        if u == 0.0 { 0.0 } else { scale * (scale + (u.recip() - 1.0)).recip() }
    };
    let mut sigmas: Vec<f32> = linspace(1.0, 0.0, steps + 1).map(shifted).collect();
    if settings.stretch
        && let Some(last) = sigmas.iter().rev().find(|s| **s != 0.0)
    {
        let scale = (1.0 - last) / (1.0 - settings.terminal) as f32;
        for sigma in sigmas.iter_mut().filter(|s| **s != 0.0) {
            *sigma = 1.0 - (1.0 - *sigma) / scale;
        }
    }
    Ok(sigmas)
}
