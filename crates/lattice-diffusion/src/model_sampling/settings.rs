//! Settings of a model family's noise levels and prediction.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Prediction;

/// Which law gives the noise levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SigmaMapKind {
    /// A table of training timesteps (arXiv 2006.11239).
    Discrete,
    /// Every twentieth of them, as distilled latent consistency models know.
    DiscreteDistilled,
    /// Log-uniform levels, time ln(s)/4 (arXiv 2206.00364).
    ContinuousEdm,
    /// Log-uniform levels, time from the angle of the velocity.
    ContinuousV,
    /// Log-uniform levels, time s/(s + 1).
    CosmosRflow,
    /// Flow matching with a shift (arXiv 2403.03206, equation 23).
    DiscreteFlow,
    /// Flow matching with an exponential shift, as Flux.
    Flux,
    /// The cosine schedule of Stable Cascade (arXiv 2306.00637).
    StableCascade,
}

/// Law of the betas of a discrete table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BetaSchedule {
    /// Square roots equally spaced ("scaled linear").
    #[default]
    Linear,
    /// Betas equally spaced.
    SqrtLinear,
}

/// Settings as model families and nodes give them; what is missing has the family-independent default.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SamplingSettings {
    /// Law of the noise levels.
    pub base: SigmaMapKind,
    /// Meaning of the network's output.
    pub prediction: Prediction,
    /// Discrete: law of the betas.
    #[serde(default)]
    pub beta_schedule: BetaSchedule,
    /// Discrete: first beta (0.00085).
    #[serde(default)]
    pub linear_start: Option<f64>,
    /// Discrete: last beta (0.012).
    #[serde(default)]
    pub linear_end: Option<f64>,
    /// Discrete: number of training timesteps (1000).
    #[serde(default)]
    pub timesteps: Option<usize>,
    /// Discrete: rescale to a zero terminal signal-to-noise ratio (arXiv 2305.08891).
    #[serde(default)]
    pub zsnr: bool,
    /// Flow (1), Flux (1.15) and Stable Cascade (1): shift towards noise.
    #[serde(default)]
    pub shift: Option<f64>,
    /// Flow: time at sigma 1 (1000).
    #[serde(default)]
    pub multiplier: Option<f64>,
    /// Continuous: lowest level (0.002).
    #[serde(default)]
    pub sigma_min: Option<f64>,
    /// Continuous: highest level (120).
    #[serde(default)]
    pub sigma_max: Option<f64>,
    /// Standard deviation of the data (1).
    #[serde(default)]
    pub sigma_data: Option<f64>,
}

/// A setting that makes no schedule.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum SettingsError {
    /// A number that must be positive and finite.
    #[error("model sampling: {name} must be a positive number, not {value}")]
    NotPositive {
        /// Setting.
        name: &'static str,
        /// Given value.
        value: f64,
    },
    /// A number that must be finite.
    #[error("model sampling: {name} must be a finite number, not {value}")]
    NotFinite {
        /// Setting.
        name: &'static str,
        /// Given value.
        value: f64,
    },
    /// Betas that are no probabilities.
    #[error("model sampling: betas from {0} to {1} are not within 0 and 1")]
    Betas(f64, f64),
    /// A table without entries or with absurdly many.
    #[error("model sampling: {0} training timesteps; 2 to 1000000 are possible")]
    Timesteps(usize),
}

/// The number if it is positive and finite.
pub(super) fn positive(name: &'static str, value: f64) -> Result<f64, SettingsError> {
    if value.is_finite() && value > 0.0 { Ok(value) } else { Err(SettingsError::NotPositive { name, value }) }
}

/// The number if it is finite.
pub(super) fn finite(name: &'static str, value: f64) -> Result<f64, SettingsError> {
    if value.is_finite() { Ok(value) } else { Err(SettingsError::NotFinite { name, value }) }
}

impl SamplingSettings {
    /// Settings of a kind with every default.
    pub const fn new(base: SigmaMapKind, prediction: Prediction) -> Self {
        Self {
            base,
            prediction,
            beta_schedule: BetaSchedule::Linear,
            linear_start: None,
            linear_end: None,
            timesteps: None,
            zsnr: false,
            shift: None,
            multiplier: None,
            sigma_min: None,
            sigma_max: None,
            sigma_data: None,
        }
    }

    /// Stable Diffusion 1.5 and its kin: discrete, noise prediction.
    pub const fn eps() -> Self {
        Self::new(SigmaMapKind::Discrete, Prediction::Eps)
    }

    /// Flow matching with a shift and the time at sigma 1.
    pub const fn flow(shift: f64, multiplier: f64) -> Self {
        let mut settings = Self::new(SigmaMapKind::DiscreteFlow, Prediction::Const);
        settings.shift = Some(shift);
        settings.multiplier = Some(multiplier);
        settings
    }

    /// Flow matching with Flux's exponential shift.
    pub const fn flux(shift: f64) -> Self {
        let mut settings = Self::new(SigmaMapKind::Flux, Prediction::Const);
        settings.shift = Some(shift);
        settings
    }

    /// Continuous levels between two sigmas.
    pub const fn continuous(
        base: SigmaMapKind,
        prediction: Prediction,
        sigma_min: f64,
        sigma_max: f64,
        sigma_data: f64,
    ) -> Self {
        let mut settings = Self::new(base, prediction);
        settings.sigma_min = Some(sigma_min);
        settings.sigma_max = Some(sigma_max);
        settings.sigma_data = Some(sigma_data);
        settings
    }

    pub(super) fn checked_sigma_data(&self) -> Result<f64, SettingsError> {
        positive("sigma_data", self.sigma_data.unwrap_or(1.0))
    }
}
