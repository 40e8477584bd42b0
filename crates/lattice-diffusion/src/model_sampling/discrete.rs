//! Tables of training timesteps.

use super::settings::{BetaSchedule, SamplingSettings, SettingsError};

/// Signal that a zero-terminal-SNR schedule keeps at its last step, so that sigma stays finite.
const LAST_ALPHA_BAR: f64 = 4.8973451890853435e-08;

/// One level per training timestep.
#[derive(Clone, Debug)]
pub struct Discrete {
    pub(super) sigmas: Vec<f32>,
    log_sigmas: Vec<f32>,
}

/// n values from `start` to `end`.
fn linspace(start: f64, end: f64, n: usize) -> impl Iterator<Item = f64> {
    let step = (end - start) / (n - 1) as f64;
    (0..n).map(move |i| if i < n / 2 { start + step * i as f64 } else { end - step * (n - 1 - i) as f64 })
}

/// Cumulative products of 1 - beta.
fn alpha_bars(settings: &SamplingSettings) -> Result<Vec<f64>, SettingsError> {
    let start = settings.linear_start.unwrap_or(0.00085);
    let end = settings.linear_end.unwrap_or(0.012);
    let n = settings.timesteps.unwrap_or(1000);
    if !(2..=1_000_000).contains(&n) {
        return Err(SettingsError::Timesteps(n));
    }
    if !(start > 0.0 && start < 1.0 && end > 0.0 && end < 1.0) {
        return Err(SettingsError::Betas(start, end));
    }
    let betas: Vec<f64> = match settings.beta_schedule {
        BetaSchedule::Linear => linspace(start.sqrt(), end.sqrt(), n).map(|b| b * b).collect(),
        BetaSchedule::SqrtLinear => linspace(start, end, n).collect(),
    };
    let mut product = 1.0;
    Ok(betas
        .iter()
        .map(|beta| {
            product *= 1.0 - beta;
            product
        })
        .collect())
}

/// Shifts and scales the square roots so that the last is zero and the first stays (Lin et al. 2023, arXiv 2305.08891,
/// algorithm 1), then keeps a trace of signal at the end.
fn rescale_to_zero_terminal_snr(alpha_bars: &mut [f64]) {
    let (Some(&first), Some(&last)) = (alpha_bars.first(), alpha_bars.last()) else { return };
    let (first, last) = (first.sqrt(), last.sqrt());
    for alpha_bar in alpha_bars.iter_mut() {
        let root = (alpha_bar.sqrt() - last) * first / (first - last);
        *alpha_bar = root * root;
    }
    if let Some(end) = alpha_bars.last_mut() {
        *end = LAST_ALPHA_BAR;
    }
}

/// Index of the entry nearest to ln(sigma), the first of equals.
fn nearest(log_sigmas: &[f32], sigma: f64) -> usize {
    let log = (sigma as f32).ln();
    let mut best = (0, f32::INFINITY);
    for (i, entry) in log_sigmas.iter().enumerate() {
        let distance = (log - entry).abs();
        if distance < best.1 {
            best = (i, distance);
        }
    }
    best.0
}

/// Log-linear interpolation at a fractional index, clamped to the table, in single precision.
fn interpolate(log_sigmas: &[f32], index: f32) -> f64 {
    let index = index.clamp(0.0, (log_sigmas.len() - 1) as f32);
    let at = |i: f32| log_sigmas.get(i as usize).copied().unwrap_or(f32::NAN);
    let weight = index - index.floor();
    let log = (1.0 - weight) * at(index.floor()) + weight * at(index.ceil());
    f64::from(f64::from(log).exp() as f32)
}

impl Discrete {
    pub(super) fn new(settings: &SamplingSettings) -> Result<Self, SettingsError> {
        let mut alpha_bars = alpha_bars(settings)?;
        if settings.zsnr {
            rescale_to_zero_terminal_snr(&mut alpha_bars);
        }
        let sigmas: Vec<f64> = alpha_bars.iter().map(|a| ((1.0 - a) / a).sqrt()).collect();
        Ok(Self {
            sigmas: sigmas.iter().map(|&s| s as f32).collect(),
            log_sigmas: sigmas.iter().map(|s| s.ln() as f32).collect(),
        })
    }

    pub(super) fn timestep(&self, sigma: f64) -> f32 {
        nearest(&self.log_sigmas, sigma) as f32
    }

    pub(super) fn sigma(&self, timestep: f64) -> f64 {
        interpolate(&self.log_sigmas, timestep as f32)
    }

    pub(super) fn sigma_at_percent(&self, percent: f64) -> f64 {
        self.sigma((1.0 - percent) * 999.0)
    }
}

/// Training timesteps between two levels of a distilled model.
const SKIP: usize = 20;

/// Every twentieth level, counted from the last (latent consistency models, arXiv 2310.04378).
#[derive(Clone, Debug)]
pub struct Distilled {
    pub(super) sigmas: Vec<f32>,
    log_sigmas: Vec<f32>,
}

impl Distilled {
    pub(super) fn new(settings: &SamplingSettings) -> Result<Self, SettingsError> {
        let full = Discrete::new(settings)?;
        if full.sigmas.len() < 2 * SKIP {
            return Err(SettingsError::Timesteps(full.sigmas.len()));
        }
        let thin = |table: &[f32]| {
            let mut kept: Vec<f32> =
                table.iter().rev().step_by(SKIP).take(table.len() / SKIP).copied().collect();
            kept.reverse();
            kept
        };
        Ok(Self { sigmas: thin(&full.sigmas), log_sigmas: thin(&full.log_sigmas) })
    }

    pub(super) fn timestep(&self, sigma: f64) -> f32 {
        (nearest(&self.log_sigmas, sigma) * SKIP + SKIP - 1) as f32
    }

    pub(super) fn sigma(&self, timestep: f64) -> f64 {
        interpolate(&self.log_sigmas, (timestep as f32 - (SKIP - 1) as f32) / SKIP as f32)
    }

    pub(super) fn sigma_at_percent(&self, percent: f64) -> f64 {
        self.sigma((1.0 - percent) * 999.0)
    }
}
