//! What a solver may do: evaluate the denoiser, draw noise, report a step.

use candle_core::{Device, Tensor};

use super::{Result, SampleError};
use crate::noise::{BrownianTree, Generator};
use crate::{Denoiser, ModelSampling};

/// One reported step.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// Index, from 0.
    pub index: usize,
    /// Number of steps of the schedule; adaptive solvers may take more or fewer.
    pub total: usize,
    /// Noise level at which the prediction was made.
    pub sigma: f64,
    /// The noisy sample.
    pub x: &'a Tensor,
    /// Its denoised prediction: a preview of the result.
    pub denoised: &'a Tensor,
}

/// Watches a run.
pub trait Observer {
    /// Called once per step. An error (such as [`SampleError::Interrupted`]) ends the run.
    fn step(&mut self, step: &Step<'_>) -> Result<()>;

    /// Called with every noise that a solver draws.
    fn noise(&mut self, _noise: &Tensor) {}
}

impl<F: FnMut(&Step<'_>) -> Result<()>> Observer for F {
    fn step(&mut self, step: &Step<'_>) -> Result<()> {
        self(step)
    }
}

/// Watches nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn step(&mut self, _step: &Step<'_>) -> Result<()> {
        Ok(())
    }
}

/// A run in progress, as a solver sees it.
pub struct SamplerRun<'a> {
    model: &'a ModelSampling,
    sigmas: Vec<f64>,
    denoiser: &'a mut dyn Denoiser,
    observer: &'a mut dyn Observer,
    seed: u64,
    /// The stream of per-step noise: a generator of its own with the same seed, so that its first draw equals the
    /// initial noise. A known property of the reference, kept for equal pictures.
    step_generator: Option<Generator>,
    /// The stream that made the initial noise.
    initial_generator: Generator,
    brownian: Option<BrownianTree>,
    last_denoised: Option<Tensor>,
}

impl<'a> SamplerRun<'a> {
    /// A run over `sigmas`. `initial_generator` is the generator after the draw of the initial noise.
    pub fn new(
        model: &'a ModelSampling,
        sigmas: Vec<f64>,
        denoiser: &'a mut dyn Denoiser,
        observer: &'a mut dyn Observer,
        seed: u64,
        initial_generator: Generator,
    ) -> Self {
        Self {
            model,
            sigmas,
            denoiser,
            observer,
            seed,
            step_generator: None,
            initial_generator,
            brownian: None,
            last_denoised: None,
        }
    }

    /// The model's noise levels and prediction.
    pub fn model(&self) -> &'a ModelSampling {
        self.model
    }

    /// The noise levels.
    pub fn sigmas(&self) -> &[f64] {
        &self.sigmas
    }

    /// Number of steps.
    pub fn step_count(&self) -> usize {
        self.sigmas.len().saturating_sub(1)
    }

    /// (s, s1) of every step.
    pub fn steps(&self) -> Vec<(f64, f64)> {
        pairs(&self.sigmas)
    }

    /// As [`SamplerRun::steps`], but for solvers that need a finite log signal-to-noise ratio: flow models have none at
    /// sigma 1, so a first level of at least 1 becomes the one just after the start.
    pub fn steps_with_finite_snr(&self) -> Vec<(f64, f64)> {
        pairs(&self.sigmas_with_finite_snr())
    }

    /// The levels of [`SamplerRun::steps_with_finite_snr`].
    pub fn sigmas_with_finite_snr(&self) -> Vec<f64> {
        let mut sigmas = self.sigmas.clone();
        if let Some(first) = sigmas.first_mut()
            && self.model.is_flow()
            && *first >= 1.0
        {
            *first = f64::from(self.model.percent_to_sigma(1e-4) as f32);
        }
        sigmas
    }

    /// D(x, sigma).
    pub fn denoise(&mut self, x: &Tensor, sigma: f64) -> Result<Tensor> {
        Ok(self.denoiser.denoise(x, sigma, false)?.denoised)
    }

    /// D(x, sigma) and the unconditional prediction; zeros where there is no unconditional branch.
    pub fn denoise_both(&mut self, x: &Tensor, sigma: f64) -> Result<(Tensor, Tensor)> {
        let predicted = self.denoiser.denoise(x, sigma, true)?;
        let uncond = match predicted.uncond {
            Some(uncond) => uncond,
            None => predicted.denoised.zeros_like()?,
        };
        Ok((predicted.denoised, uncond))
    }

    /// Reports step `index` with its prediction.
    pub fn report(&mut self, index: usize, sigma: f64, x: &Tensor, denoised: &Tensor) -> Result<()> {
        self.last_denoised = Some(denoised.clone());
        self.observer.step(&Step { index, total: self.step_count(), sigma, x, denoised })
    }

    /// The prediction reported last.
    pub fn into_last_denoised(self) -> Option<Tensor> {
        self.last_denoised
    }

    /// Per-step noise of the shape of `like`.
    pub fn step_noise(&mut self, like: &Tensor) -> Result<Tensor> {
        let generator = self.step_generator.get_or_insert_with(|| Generator::new(self.seed));
        let values = generator.normal(like.elem_count());
        self.placed(values, like)
    }

    /// Noise of the shape of `like` that continues the stream of the initial noise.
    pub fn initial_stream_noise(&mut self, like: &Tensor) -> Result<Tensor> {
        let values = self.initial_generator.normal(like.elem_count());
        self.placed(values, like)
    }

    /// The same for latents [B, C, H, W] that the reference holds with their channels last in memory: values are drawn one by
    /// one in the order in which they lie there.
    pub fn initial_stream_noise_channels_last(&mut self, like: &Tensor) -> Result<Tensor> {
        let (b, c, h, w) = like.dims4()?;
        let values: Vec<f32> = self.initial_generator.normal_singly(like.elem_count());
        let noise =
            Tensor::from_vec(values, (b, h, w, c), &Device::Cpu)?.permute((0, 3, 1, 2))?.contiguous()?;
        Ok(noise.to_device(like.device())?.to_dtype(like.dtype())?)
    }

    /// Brownian noise between two levels, of the shape of `like`, normalised to unit variance. The path runs between
    /// the lowest positive and the highest level of the schedule.
    pub fn brownian_noise(&mut self, like: &Tensor, from: f64, to: f64) -> Result<Tensor> {
        // Times are those of f32 sigmas.
        let (from, to) = (f64::from(from as f32), f64::from(to as f32));
        let count = like.elem_count();
        let tree = match &mut self.brownian {
            Some(tree) => tree,
            none => {
                let positive = self.sigmas.iter().copied().filter(|s| *s > 0.0);
                let low = positive.fold(f64::INFINITY, f64::min);
                let high = self.sigmas.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                none.insert(BrownianTree::new(low, high, self.seed, count)?)
            }
        };
        let values = tree.step_noise(from, to)?;
        self.placed(values, like)
    }

    fn placed(&mut self, values: Vec<f32>, like: &Tensor) -> Result<Tensor> {
        let noise = Tensor::from_vec(values, like.shape(), &Device::Cpu)?;
        let noise = noise.to_device(like.device())?.to_dtype(like.dtype())?;
        self.observer.noise(&noise);
        Ok(noise)
    }

    /// An error of solver `sampler` about this run's levels.
    pub(super) fn bad_sigmas(&self, sampler: &'static str) -> SampleError {
        let end = |sigma: Option<&f64>| sigma.copied().unwrap_or(f64::NAN);
        SampleError::Sigmas { sampler, from: end(self.sigmas.first()), to: end(self.sigmas.last()) }
    }
}

fn pairs(sigmas: &[f64]) -> Vec<(f64, f64)> {
    sigmas.windows(2).map(|pair| (pair[0], pair[1])).collect()
}
