//! Log-uniform levels between two sigmas.

use std::f64::consts::{FRAC_2_PI, FRAC_PI_2};

use super::settings::{SamplingSettings, SettingsError, SigmaMapKind, positive};

const LEVELS: usize = 1000;

#[derive(Clone, Copy, Debug)]
enum TimeLaw {
    /// ln(s)/4 (Karras et al., arXiv 2206.00364, table 1).
    QuarterLog,
    /// The angle between data and noise as a share of a quarter turn.
    Angle,
    /// s/(s + 1), the time of the equivalent rectified flow.
    RectifiedFlow,
}

/// Levels whose logarithms are equally spaced, under one of three time laws.
#[derive(Clone, Debug)]
pub struct Continuous {
    pub(super) sigmas: Vec<f32>,
    law: TimeLaw,
}

impl Continuous {
    pub(super) fn new(settings: &SamplingSettings) -> Result<Self, SettingsError> {
        let min = positive("sigma_min", settings.sigma_min.unwrap_or(0.002))?.ln();
        let max = positive("sigma_max", settings.sigma_max.unwrap_or(120.0))?.ln();
        let step = (max - min) / (LEVELS - 1) as f64;
        let law = match settings.base {
            SigmaMapKind::ContinuousV => TimeLaw::Angle,
            SigmaMapKind::CosmosRflow => TimeLaw::RectifiedFlow,
            _ => TimeLaw::QuarterLog,
        };
        let sigmas = (0..LEVELS).map(|i| (min + step * i as f64).exp() as f32).collect();
        Ok(Self { sigmas, law })
    }

    fn ends(&self) -> (f64, f64) {
        let end = |sigma: Option<&f32>| sigma.copied().map_or(0.0, f64::from);
        (end(self.sigmas.first()), end(self.sigmas.last()))
    }

    pub(super) fn timestep(&self, sigma: f64) -> f32 {
        (match self.law {
            TimeLaw::QuarterLog => 0.25 * sigma.ln(),
            TimeLaw::Angle => sigma.atan() * FRAC_2_PI,
            TimeLaw::RectifiedFlow => sigma / (sigma + 1.0),
        }) as f32
    }

    pub(super) fn sigma(&self, timestep: f64) -> f64 {
        match self.law {
            TimeLaw::QuarterLog => (4.0 * timestep).exp(),
            TimeLaw::Angle => (timestep * FRAC_PI_2).tan(),
            TimeLaw::RectifiedFlow => {
                let (_, max) = self.ends();
                if timestep >= max / (max + 1.0) { max } else { timestep / (1.0 - timestep) }
            }
        }
    }

    pub(super) fn sigma_at_percent(&self, percent: f64) -> f64 {
        let (min, max) = self.ends();
        ((max.ln() - min.ln()) * (1.0 - percent) + min.ln()).exp()
    }
}
