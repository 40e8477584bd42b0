//! A denoiser in closed form: data are normally distributed around a value, with one deviation.

use candle_core::{Device, Result, Tensor};
use lattice_diffusion::noise::prepare_noise;
use lattice_diffusion::sample::{DenoiseMask, Sampled, Sampling};
use lattice_diffusion::samplers::{self, Observer, Sampler, Silent};
use lattice_diffusion::{Denoised, Denoiser, ModelSampling, SamplingSettings};

/// Deviation of the data.
pub(crate) const DEVIATION: f64 = 0.7;
/// Their mean.
pub(crate) const MEAN: f64 = 0.4;
/// What the unconditional prediction takes for their mean.
const UNCONDITIONAL_MEAN: f64 = -0.2;

/// The best prediction of the clean sample, and how often it was asked for.
pub(crate) struct Gaussian {
    pub(crate) model: ModelSampling,
    pub(crate) calls: usize,
}

impl Gaussian {
    pub(crate) fn of(model: &ModelSampling) -> Self {
        Self { model: model.clone(), calls: 0 }
    }

    /// E[z | x], where x = a z + s n: a is 1, for flow models 1 - s.
    pub(crate) fn expectation(&self, x: &Tensor, sigma: f64, mean: f64) -> Result<Tensor> {
        let a = self.model.alpha(sigma);
        let variance = DEVIATION * DEVIATION;
        let gain = a * variance / (a * a * variance + sigma * sigma);
        x.affine(gain, mean * (1.0 - gain * a))
    }
}

impl Denoiser for Gaussian {
    fn denoise(&mut self, x: &Tensor, sigma: f64, need_uncond: bool) -> Result<Denoised> {
        self.calls += 1;
        let uncond = need_uncond.then(|| self.expectation(x, sigma, UNCONDITIONAL_MEAN)).transpose()?;
        Ok(Denoised { denoised: self.expectation(x, sigma, MEAN)?, uncond })
    }
}

/// Noise levels of Stable Diffusion 1.
pub(crate) fn discrete() -> ModelSampling {
    ModelSampling::new(&SamplingSettings::eps()).unwrap()
}

/// Flow matching.
pub(crate) fn flow() -> ModelSampling {
    ModelSampling::new(&SamplingSettings::flow(3.0, 1000.0)).unwrap()
}

/// A run from `latent` over `sigmas`, with noise of a seed.
pub(crate) struct Case<'a> {
    pub(crate) model: &'a ModelSampling,
    pub(crate) sampler: &'a dyn Sampler,
    pub(crate) sigmas: &'a [f32],
    pub(crate) latent: &'a Tensor,
    pub(crate) seed: u64,
    pub(crate) mask: Option<&'a DenoiseMask>,
}

impl Case<'_> {
    /// Its result, and the number of model calls.
    pub(crate) fn run(&self) -> samplers::Result<(Sampled, usize)> {
        self.run_watched(&mut Silent)
    }

    pub(crate) fn run_watched(&self, observer: &mut dyn Observer) -> samplers::Result<(Sampled, usize)> {
        let noise = prepare_noise(self.latent.dims(), self.seed, None)?;
        let sampling = Sampling {
            model: self.model,
            format: None,
            sampler: self.sampler,
            sigmas: self.sigmas,
            noise: &noise,
            seed: self.seed,
            latent: self.latent,
            mask: self.mask,
        };
        let mut denoiser = Gaussian::of(self.model);
        let sampled = sampling.run(&mut denoiser, observer)?;
        Ok((sampled, denoiser.calls))
    }
}

pub(crate) fn zeros(shape: &[usize]) -> Tensor {
    Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap()
}

pub(crate) fn values(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}
