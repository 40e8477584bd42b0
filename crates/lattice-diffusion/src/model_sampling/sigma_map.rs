//! Noise levels with the maps between sigma, time and share of the run.

use super::continuous::Continuous;
use super::discrete::{Discrete, Distilled};
use super::flow::{DiscreteFlow, Flux};
use super::settings::{SamplingSettings, SettingsError, SigmaMapKind};
use super::stable_cascade::StableCascade;

/// A sigma that no schedule reaches: "from the very start".
pub(super) const ABOVE_EVERY_SIGMA: f64 = 999_999_999.9;

/// One law of noise levels. Times and levels are f32 in the reference; so are the tables here.
#[derive(Clone, Debug)]
pub enum SigmaMap {
    /// Training timesteps.
    Discrete(Discrete),
    /// Twentieth training timesteps.
    Distilled(Distilled),
    /// Log-uniform levels under one of three time laws.
    Continuous(Continuous),
    /// Shifted flow.
    DiscreteFlow(DiscreteFlow),
    /// Exponentially shifted flow.
    Flux(Flux),
    /// Cosine schedule.
    StableCascade(StableCascade),
}

macro_rules! each {
    ($map:expr, $inner:ident => $body:expr) => {
        match $map {
            SigmaMap::Discrete($inner) => $body,
            SigmaMap::Distilled($inner) => $body,
            SigmaMap::Continuous($inner) => $body,
            SigmaMap::DiscreteFlow($inner) => $body,
            SigmaMap::Flux($inner) => $body,
            SigmaMap::StableCascade($inner) => $body,
        }
    };
}

impl SigmaMap {
    /// From a model's settings.
    pub fn new(settings: &SamplingSettings) -> Result<Self, SettingsError> {
        Ok(match settings.base {
            SigmaMapKind::Discrete => Self::Discrete(Discrete::new(settings)?),
            SigmaMapKind::DiscreteDistilled => Self::Distilled(Distilled::new(settings)?),
            SigmaMapKind::ContinuousEdm | SigmaMapKind::ContinuousV | SigmaMapKind::CosmosRflow => {
                Self::Continuous(Continuous::new(settings)?)
            }
            SigmaMapKind::DiscreteFlow => Self::DiscreteFlow(DiscreteFlow::new(settings)?),
            SigmaMapKind::Flux => Self::Flux(Flux::new(settings)?),
            SigmaMapKind::StableCascade => Self::StableCascade(StableCascade::new(settings)?),
        })
    }

    /// The levels, ascending; at least two.
    pub fn sigmas(&self) -> &[f32] {
        each!(self, map => &map.sigmas)
    }

    /// Lowest level.
    pub fn sigma_min(&self) -> f64 {
        self.sigmas().first().copied().map_or(0.0, f64::from)
    }

    /// Highest level.
    pub fn sigma_max(&self) -> f64 {
        self.sigmas().last().copied().map_or(0.0, f64::from)
    }

    /// Time of a level.
    pub fn timestep(&self, sigma: f64) -> f32 {
        each!(self, map => map.timestep(sigma))
    }

    /// Level of a time.
    pub fn sigma(&self, timestep: f64) -> f64 {
        each!(self, map => map.sigma(timestep))
    }

    /// Level after a share of the run.
    pub fn percent_to_sigma(&self, percent: f64) -> f64 {
        if percent <= 0.0 {
            match self {
                Self::DiscreteFlow(_) | Self::Flux(_) => 1.0,
                _ => ABOVE_EVERY_SIGMA,
            }
        } else if percent >= 1.0 {
            0.0
        } else {
            each!(self, map => map.sigma_at_percent(percent))
        }
    }
}
