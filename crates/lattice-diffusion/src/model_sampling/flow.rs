//! Levels of flow matching: sigma is the share of noise.

use super::settings::{SamplingSettings, SettingsError, finite, positive};

/// S(u) = a u / (1 + (a - 1) u), which moves time towards noise (arXiv 2403.03206, equation 23).
#[derive(Clone, Debug)]
pub struct DiscreteFlow {
    pub(super) sigmas: Vec<f32>,
    shift: f64,
    multiplier: f64,
}

impl DiscreteFlow {
    pub(super) fn new(settings: &SamplingSettings) -> Result<Self, SettingsError> {
        const LEVELS: usize = 1000;
        let shift = positive("shift", settings.shift.unwrap_or(1.0))?;
        let multiplier = positive("multiplier", settings.multiplier.unwrap_or(1000.0))?;
        let mut map = Self { sigmas: Vec::new(), shift, multiplier };
        let level = |k| map.sigma(k as f64 / LEVELS as f64 * multiplier) as f32;
        let sigmas = (1..=LEVELS).map(level).collect();
        map.sigmas = sigmas;
        Ok(map)
    }

    fn shifted(&self, u: f64) -> f64 {
        if self.shift == 1.0 { u } else { self.shift * u / (1.0 + (self.shift - 1.0) * u) }
    }

    pub(super) fn timestep(&self, sigma: f64) -> f32 {
        sigma as f32 * self.multiplier as f32
    }

    pub(super) fn sigma(&self, timestep: f64) -> f64 {
        let (shift, u) = (self.shift as f32, timestep as f32 / self.multiplier as f32);
        let shifted = if self.shift == 1.0 { u } else { shift * u / (1.0 + (self.shift - 1.0) as f32 * u) };
        f64::from(shifted)
    }

    pub(super) fn sigma_at_percent(&self, percent: f64) -> f64 {
        self.shifted(1.0 - percent)
    }
}

/// e^mu / (e^mu + 1/t - 1): the same family of curves with a = e^mu.
#[derive(Clone, Debug)]
pub struct Flux {
    pub(super) sigmas: Vec<f32>,
    scale: f64,
}

impl Flux {
    pub(super) fn new(settings: &SamplingSettings) -> Result<Self, SettingsError> {
        const LEVELS: usize = 10_000;
        let scale = finite("shift", settings.shift.unwrap_or(1.15))?.exp();
        let scale = positive("exp(shift)", scale)?;
        let mut map = Self { sigmas: Vec::new(), scale };
        let sigmas = (1..=LEVELS).map(|k| map.sigma(k as f64 / LEVELS as f64) as f32).collect();
        map.sigmas = sigmas;
        Ok(map)
    }

    #[expect(clippy::unused_self, reason = "every map has the same methods")]
    pub(super) fn timestep(&self, sigma: f64) -> f32 {
        sigma as f32
    }

    pub(super) fn sigma(&self, timestep: f64) -> f64 {
        // In f32, with the reciprocal taken first: for some shifts the highest level is the number just below 1, which
        // solvers treat differently from 1.
        let (scale, t) = (self.scale as f32, timestep as f32);
        f64::from(scale * (scale + (t.recip() - 1.0)).recip())
    }

    pub(super) fn sigma_at_percent(&self, percent: f64) -> f64 {
        self.scale / (self.scale + (1.0 / (1.0 - percent) - 1.0))
    }
}

/// The value at `x` of the line through (x0, y0) and (x1, y1).
fn line(x: f64, (x0, y0): (f64, f64), (x1, y1): (f64, f64)) -> f64 {
    let slope = (y1 - y0) / (x1 - x0);
    x * slope + (y0 - slope * x0)
}

/// Flux's shift for a picture of that size in pixels: linear in the number of tokens, `base_shift` at 256 and
/// `max_shift` at 4096 of them.
pub fn flux_shift(width: usize, height: usize, base_shift: f64, max_shift: f64) -> f64 {
    let tokens = width as f64 * height as f64 / 256.0;
    line(tokens, (256.0, base_shift), (4096.0, max_shift))
}

/// LTX-Video's shift for that many tokens: `base_shift` at 1024, `max_shift` at 4096.
pub fn ltxv_shift(tokens: usize, base_shift: f64, max_shift: f64) -> f64 {
    line(tokens as f64, (1024.0, base_shift), (4096.0, max_shift))
}
