//! How a model relates noise levels, network inputs and network outputs.
//!
//! Samplers think in sigma, the noise level; every family of networks has its own idea of time, of scaling, and of what
//! its output means. [`SigmaMap`] holds the noise levels and the two maps between sigma and time, [`Prediction`] the
//! meaning of the output; [`ModelSampling`] is both, built from [`SamplingSettings`].

mod continuous;
mod discrete;
mod flow;
mod prediction;
mod settings;
mod sigma_map;
mod stable_cascade;

use candle_core::{Result, Tensor};

pub use flow::{flux_shift, ltxv_shift};
pub use prediction::Prediction;
pub use settings::{BetaSchedule, SamplingSettings, SettingsError, SigmaMapKind};
pub use sigma_map::SigmaMap;

use crate::lincomb::{lincomb, map_elements};

/// Noise levels and prediction type of one model.
#[derive(Clone, Debug)]
pub struct ModelSampling {
    prediction: Prediction,
    sigma_data: f64,
    map: SigmaMap,
}

impl ModelSampling {
    /// From a model's settings.
    pub fn new(settings: &SamplingSettings) -> std::result::Result<Self, SettingsError> {
        Ok(Self {
            prediction: settings.prediction,
            sigma_data: settings.checked_sigma_data()?,
            map: SigmaMap::new(settings)?,
        })
    }

    /// What the network's output means.
    pub fn prediction(&self) -> Prediction {
        self.prediction
    }

    /// Standard deviation of clean data that the scalings assume.
    pub fn sigma_data(&self) -> f64 {
        self.sigma_data
    }

    /// Whether samples lie on straight lines between data and noise (flow matching, "const").
    pub fn is_flow(&self) -> bool {
        self.prediction == Prediction::Const
    }

    /// The noise levels, ascending.
    pub fn sigmas(&self) -> &[f32] {
        self.map.sigmas()
    }

    /// Lowest noise level of the table.
    pub fn sigma_min(&self) -> f64 {
        self.map.sigma_min()
    }

    /// Highest noise level of the table.
    pub fn sigma_max(&self) -> f64 {
        self.map.sigma_max()
    }

    /// The time that the network is given at a noise level.
    pub fn timestep(&self, sigma: f64) -> f32 {
        self.map.timestep(sigma)
    }

    /// The noise level at a time.
    pub fn sigma(&self, timestep: f64) -> f64 {
        self.map.sigma(timestep)
    }

    /// The noise level after a share of the sampling, 0 (start) to 1 (end). At and beyond the ends it is a value that
    /// no schedule exceeds or falls below.
    pub fn percent_to_sigma(&self, percent: f64) -> f64 {
        self.map.percent_to_sigma(percent)
    }

    /// [`ModelSampling::percent_to_sigma`], but with the model's own highest and lowest level at the ends.
    pub fn percent_to_actual_sigma(&self, percent: f64) -> f64 {
        if percent == 0.0 {
            self.sigma_max()
        } else if percent == 1.0 {
            self.sigma_min()
        } else {
            self.percent_to_sigma(percent)
        }
    }

    /// lam(sigma), half the logarithm of the signal-to-noise ratio: -ln s, for flow models ln((1 - s)/s).
    pub fn half_log_snr(&self, sigma: f64) -> f64 {
        if self.is_flow() { ((1.0 - sigma) / sigma).ln() } else { -sigma.ln() }
    }

    /// The noise level of a half log signal-to-noise ratio.
    pub fn sigma_of_half_log_snr(&self, lambda: f64) -> f64 {
        if self.is_flow() { 1.0 / (1.0 + lambda.exp()) } else { (-lambda).exp() }
    }

    /// Scale of the clean sample within a noisy one: 1, for flow models 1 - s.
    pub fn alpha(&self, sigma: f64) -> f64 {
        if self.is_flow() { 1.0 - sigma } else { 1.0 }
    }

    /// Whether a schedule that starts at `sigma` starts at this model's highest noise.
    pub fn is_max(&self, sigma: f64) -> bool {
        let max = self.sigma_max();
        (sigma - max).abs() <= 1e-5 * sigma.abs().max(max.abs()) || sigma > max
    }

    /// The network's input for the noisy sample `x`.
    pub fn network_input(&self, x: &Tensor, sigma: f64) -> Result<Tensor> {
        match self.prediction {
            Prediction::Const | Prediction::ImgToImg => Ok(x.clone()),
            Prediction::CosmosRflow => lincomb(&[(1.0 / (sigma + 1.0), x)]),
            _ => lincomb(&[(1.0 / self.total_deviation(sigma), x)]),
        }
    }

    /// The denoised sample that the network's output for [`ModelSampling::network_input`] means.
    pub fn denoised(&self, x: &Tensor, output: &Tensor, sigma: f64) -> Result<Tensor> {
        let sd = self.sigma_data;
        let skip = sd * sd / (sigma * sigma + sd * sd);
        let velocity_scale = sigma * sd / self.total_deviation(sigma);
        match self.prediction {
            Prediction::Eps | Prediction::Const => lincomb(&[(1.0, x), (-sigma, output)]),
            Prediction::V => lincomb(&[(skip, x), (-velocity_scale, output)]),
            Prediction::Edm => lincomb(&[(skip, x), (velocity_scale, output)]),
            Prediction::X0 | Prediction::ImgToImg => Ok(output.clone()),
            Prediction::CosmosRflow => {
                let t = sigma / (sigma + 1.0);
                lincomb(&[(1.0 - t, x), (-t, output)])
            }
            Prediction::Lcm => {
                // Boundary conditions of consistency models with sigma_data 0.5 (arXiv 2310.04378, appendix D).
                let t = 10.0 * f64::from(self.timestep(sigma));
                let (skip, out) = (0.25 / (t * t + 0.25), t / (t * t + 0.25).sqrt());
                lincomb(&[(skip + out, x), (-out * sigma, output)])
            }
        }
    }

    /// The noisy sample that a run at `sigma` starts from. `max_denoise`: it starts at the model's highest noise, where
    /// models that do not reach pure noise are given the deviation that they were trained to see.
    pub fn noise_scaling(
        &self,
        sigma: f64,
        noise: &Tensor,
        latent: &Tensor,
        max_denoise: bool,
    ) -> Result<Tensor> {
        let (of_noise, of_latent) = self.noise_scales(sigma, max_denoise);
        let (of_noise_32, of_latent_32) = (of_noise as f32, of_latent as f32);
        // Rounded after every operation, as the reference's start is: solvers may magnify the last bit.
        map_elements(
            [noise, latent],
            |[n, l]| of_noise_32 * n + of_latent_32 * l,
            || lincomb(&[(of_noise, noise), (of_latent, latent)]),
        )
    }

    /// Factors of noise and latent in [`ModelSampling::noise_scaling`].
    pub fn noise_scales(&self, sigma: f64, max_denoise: bool) -> (f64, f64) {
        match self.prediction {
            Prediction::Const => (sigma, 1.0 - sigma),
            Prediction::CosmosRflow => (sigma, 1.0),
            _ if max_denoise => {
                let sigma = sigma as f32;
                (f64::from((1.0 + sigma * sigma).sqrt()), 1.0)
            }
            _ => (sigma, 1.0),
        }
    }

    /// The result of a run whose last level is `sigma`: flow models undo the scale of what noise is left.
    pub fn inverse_noise_scaling(&self, sigma: f64, x: &Tensor) -> Result<Tensor> {
        if self.is_flow() && sigma != 0.0 { lincomb(&[(1.0 / (1.0 - sigma), x)]) } else { Ok(x.clone()) }
    }

    fn total_deviation(&self, sigma: f64) -> f64 {
        sigma.hypot(self.sigma_data)
    }
}
