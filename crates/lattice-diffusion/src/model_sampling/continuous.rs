//! Log-uniform levels between two sigmas.

use std::f32::consts::PI;
use std::f64::consts::FRAC_2_PI;

use crate::schedules::linspace::linspace;

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
        let law = match settings.base {
            SigmaMapKind::ContinuousV => TimeLaw::Angle,
            SigmaMapKind::CosmosRflow => TimeLaw::RectifiedFlow,
            _ => TimeLaw::QuarterLog,
        };
        let logs = linspace(min as f32, max as f32, LEVELS);
        let sigmas = logs.map(|log| f64::from(log).exp() as f32).collect();
        Ok(Self { sigmas, law })
    }

    fn ends(&self) -> (f64, f64) {
        let end = |sigma: Option<&f32>| sigma.copied().map_or(0.0, f64::from);
        (end(self.sigmas.first()), end(self.sigmas.last()))
    }

    pub(super) fn timestep(&self, sigma: f64) -> f32 {
        match self.law {
            TimeLaw::QuarterLog => 0.25 * sigma.ln() as f32,
            TimeLaw::Angle => (sigma.atan() * FRAC_2_PI) as f32,
            TimeLaw::RectifiedFlow => sigma as f32 / (sigma as f32 + 1.0),
        }
    }

    pub(super) fn sigma(&self, timestep: f64) -> f64 {
        let t = timestep as f32;
        let sigma = match self.law {
            TimeLaw::QuarterLog => f64::from(4.0 * t).exp() as f32,
            TimeLaw::Angle => f64::from(t * PI / 2.0).tan() as f32,
            TimeLaw::RectifiedFlow => {
                let (_, max) = self.ends();
                if timestep >= max / (max + 1.0) { max as f32 } else { t / (1.0 - t) }
            }
        };
        f64::from(sigma)
    }

    pub(super) fn sigma_at_percent(&self, percent: f64) -> f64 {
        let (min, max) = self.ends();
        ((max.ln() - min.ln()) * (1.0 - percent) + min.ln()).exp()
    }
}
