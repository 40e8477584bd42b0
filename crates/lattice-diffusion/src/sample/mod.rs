//! The frame around every sampler: from a latent and noise to a sampled latent.
//!
//! Scaling into the network's range, the noisy start, masks, the walk of the [`Sampler`], and the way back. What the
//! nodes `KSampler`, `KSamplerAdvanced`, `SamplerCustom` and `SamplerCustomAdvanced` do is this frame with different
//! noise and schedules ([`crate::schedules`], [`window`], [`initial_noise`]).

mod mask;

use candle_core::{DType, Device, Tensor};

pub use mask::{DenoiseMask, Differential};

use crate::latent_format::LatentFormat;
use crate::noise::{Generator, PreparedNoise, normal_tensor, prepare_noise};
use crate::samplers::{Observer, Result, Sampler, SamplerRun};
use crate::{Denoiser, ModelSampling, lincomb};

/// Everything that a run needs besides its denoiser and observer.
#[derive(Clone, Copy, Debug)]
pub struct Sampling<'a> {
    /// Noise levels and prediction of the model.
    pub model: &'a ModelSampling,
    /// Scale between the latent and the network, if it is not 1.
    pub format: Option<&'a LatentFormat>,
    /// The solver.
    pub sampler: &'a dyn Sampler,
    /// Descending noise levels, usually ending in 0. None: the latent comes back.
    pub sigmas: &'a [f32],
    /// Initial noise of the latent's shape, with the generator that made it.
    pub noise: &'a PreparedNoise,
    /// Seed of the noise that solvers draw.
    pub seed: u64,
    /// What to start from, [B, C, ...], in the scale of model files.
    pub latent: &'a Tensor,
    /// Where to denoise.
    pub mask: Option<&'a DenoiseMask>,
}

/// Result of a run, in the scale of model files.
#[derive(Clone, Debug)]
pub struct Sampled {
    /// The sample.
    pub samples: Tensor,
    /// The last reported prediction of the clean sample; the sample itself if no step ran.
    pub denoised: Tensor,
}

impl Sampling<'_> {
    /// Runs the sampler.
    pub fn run(&self, denoiser: &mut dyn Denoiser, observer: &mut dyn Observer) -> Result<Sampled> {
        let mut sigmas: Vec<f64> = self.sigmas.iter().copied().map(f64::from).collect();
        self.sampler.adjust_sigmas(&mut sigmas);
        let (Some(&first), Some(&last)) = (sigmas.first(), sigmas.last()) else {
            return Ok(Sampled { samples: self.latent.clone(), denoised: self.latent.clone() });
        };
        let latent = scale_in(self.format, self.latent)?;
        let noise = self.noise.noise.to_device(latent.device())?.to_dtype(latent.dtype())?;
        let start = self.model.noise_scaling(first, &noise, &latent, self.model.is_max(first))?;

        let mut masked;
        let denoiser: &mut dyn Denoiser = match self.mask {
            None => denoiser,
            Some(mask) => {
                let noise = if self.sampler.redraws_mask_noise() {
                    let mut generator = Generator::new(self.seed.wrapping_add(1));
                    normal_tensor(&mut generator, latent.shape())?.to_device(latent.device())?
                } else {
                    noise
                };
                masked = mask.around(denoiser, self.model, (first, last), latent, noise)?;
                &mut masked
            }
        };
        let generator = self.noise.generator.clone();
        let mut run = SamplerRun::new(self.model, sigmas, denoiser, observer, self.seed, generator);
        let x = self.sampler.sample(&mut run, start)?;
        let denoised = run.into_last_denoised();

        let scale_out =
            |x: &Tensor| self.format.map_or_else(|| Ok(x.clone()), |format| format.process_out(x));
        let samples = scale_out(&self.model.inverse_noise_scaling(last, &x)?)?;
        let denoised = denoised.map_or_else(|| Ok(samples.clone()), |d| scale_out(&d))?;
        Ok(Sampled { samples, denoised })
    }
}

/// The latent in the network's scale. An empty latent, zero everywhere, has no scale.
fn scale_in(format: Option<&LatentFormat>, latent: &Tensor) -> Result<Tensor> {
    match format {
        Some(format) if !is_zero(latent)? => Ok(format.process_in(latent)?),
        _ => Ok(latent.clone()),
    }
}

fn is_zero(latent: &Tensor) -> Result<bool> {
    let values = latent.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    Ok(values.iter().all(|v| *v == 0.0))
}

/// Initial noise for a latent: that of the seed, or none.
pub fn initial_noise(
    latent: &Tensor,
    seed: Option<u64>,
    batch_index: Option<&[usize]>,
) -> Result<PreparedNoise> {
    Ok(match seed {
        Some(seed) => prepare_noise(latent.dims(), seed, batch_index)?,
        None => PreparedNoise {
            noise: Tensor::zeros(latent.shape(), DType::F32, &Device::Cpu)?,
            generator: Generator::new(0),
        },
    })
}

/// The part of a schedule that `KSamplerAdvanced` runs: from step `start` to step `end`. A schedule cut short ends in 0
/// unless noise is to be left. Empty if it starts at or after the end.
pub fn window(sigmas: &[f32], start: usize, end: usize, leave_noise: bool) -> Vec<f32> {
    let mut sigmas = sigmas.to_vec();
    if end < sigmas.len().saturating_sub(1) {
        sigmas.truncate(end + 1);
        if let Some(last) = sigmas.last_mut()
            && !leave_noise
        {
            *last = 0.0;
        }
    }
    if start < sigmas.len().saturating_sub(1) { sigmas.split_off(start) } else { Vec::new() }
}

/// The node `AddNoise`: the latent with noise of the level that the schedule spans. What is not finite becomes 0.
pub fn add_noise(
    model: &ModelSampling,
    format: Option<&LatentFormat>,
    sigmas: &[f32],
    noise: &Tensor,
    latent: &Tensor,
) -> Result<Tensor> {
    let scale = match *sigmas {
        [] => return Ok(latent.clone()),
        [only] => only,
        [first, .., last] => (first - last).abs(),
    };
    let scaled = scale_in(format, latent)?;
    let noise = noise.to_device(scaled.device())?.to_dtype(scaled.dtype())?;
    let noisy = model.noise_scaling(f64::from(scale), &noise, &scaled, false)?;
    let noisy = match format {
        Some(format) => format.process_out(&noisy)?,
        None => noisy,
    };
    let values = noisy.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    let finite: Vec<f32> = values.into_iter().map(|v| if v.is_finite() { v } else { 0.0 }).collect();
    Ok(Tensor::from_vec(finite, noisy.shape(), &Device::Cpu)?.to_device(latent.device())?)
}

/// a m + b (1 - m).
fn blend(a: &Tensor, b: &Tensor, mask: &Tensor) -> Result<Tensor, candle_core::Error> {
    b + ((a - b)? * mask)?
}

/// Noise and latent at a level below the model's highest.
fn noised(
    model: &ModelSampling,
    sigma: f64,
    noise: &Tensor,
    latent: &Tensor,
) -> Result<Tensor, candle_core::Error> {
    let (of_noise, of_latent) = model.noise_scales(sigma, false);
    lincomb(&[(of_noise, noise), (of_latent, latent)])
}
