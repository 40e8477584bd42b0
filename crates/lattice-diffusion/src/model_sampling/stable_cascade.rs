//! The cosine schedule of Würstchen and Stable Cascade (arXiv 2306.00637).

use std::f64::consts::FRAC_PI_2;

use super::settings::{SamplingSettings, SettingsError, positive};

const OFFSET: f64 = 0.008;
const LEVELS: usize = 10_000;

/// Cosine levels, with the log signal-to-noise ratio shifted by -2 ln f.
#[derive(Clone, Debug)]
pub struct StableCascade {
    pub(super) sigmas: Vec<f32>,
    shift: f64,
}

fn cosine_squared(t: f64) -> f64 {
    ((t + OFFSET) / (1.0 + OFFSET) * FRAC_PI_2).cos().powi(2)
}

impl StableCascade {
    pub(super) fn new(settings: &SamplingSettings) -> Result<Self, SettingsError> {
        let shift = positive("shift", settings.shift.unwrap_or(1.0))?;
        let mut map = Self { sigmas: Vec::new(), shift };
        let sigmas = (1..=LEVELS).map(|k| map.sigma(k as f64 / LEVELS as f64) as f32).collect();
        map.sigmas = sigmas;
        Ok(map)
    }

    /// The time at which the unshifted schedule has this level: networks are told that one.
    #[expect(clippy::unused_self, reason = "every map has the same methods")]
    pub(super) fn timestep(&self, sigma: f64) -> f32 {
        let alpha_bar = 1.0 / (sigma * sigma + 1.0);
        let angle = (alpha_bar * cosine_squared(0.0)).sqrt().acos();
        (angle / FRAC_PI_2 * (1.0 + OFFSET) - OFFSET) as f32
    }

    pub(super) fn sigma(&self, timestep: f64) -> f64 {
        let mut alpha_bar = cosine_squared(timestep) / cosine_squared(0.0);
        if self.shift != 1.0 {
            let log_odds = (alpha_bar / (1.0 - alpha_bar)).ln() - 2.0 * self.shift.ln();
            alpha_bar = 1.0 / (1.0 + (-log_odds).exp());
        }
        let alpha_bar = alpha_bar.clamp(0.0001, 0.9999);
        ((1.0 - alpha_bar) / alpha_bar).sqrt()
    }

    pub(super) fn sigma_at_percent(&self, percent: f64) -> f64 {
        self.sigma(1.0 - percent)
    }
}
