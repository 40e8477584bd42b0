//! What every sampling node does: a guided run over noise levels, with progress, previews and cancellation.

use candle_core::Tensor;
use lattice_diffusion::guidance;
use lattice_diffusion::latent_format::{LatentFormat, is_empty};
use lattice_diffusion::model::Run;
use lattice_diffusion::sample::{DenoiseMask, Differential, Sampling, initial_noise};
use lattice_diffusion::samplers::{SampleError, Sampler, Step};
use lattice_graph::{CallContext, NodeError};

use super::previews::Previewer;
use crate::types::{Latent, Noise};
use crate::{Error, Result};

/// A run that is about to start.
pub(super) struct Job<'a> {
    /// The model with its conditionings.
    pub(super) guider: guidance::Guider,
    /// The solver.
    pub(super) sampler: &'a dyn Sampler,
    /// Noise levels. Without any the latent comes back.
    pub(super) sigmas: &'a [f32],
    /// The initial noise.
    pub(super) noise: Noise,
    /// Seed of what the solver draws.
    pub(super) seed: u64,
}

/// What a run leaves.
pub(super) struct Sampled {
    /// The sample.
    pub(super) output: Latent,
    /// The model's last prediction of the clean sample.
    pub(super) denoised: Latent,
}

impl Job<'_> {
    /// Samples from a latent.
    pub(super) fn run(self, ctx: &CallContext<'_>, latent: &Latent) -> Result<Sampled> {
        let model = &self.guider.model;
        let format = model.base.latent_format();
        let samples = match format {
            Some(format) => format.fit_empty(&latent.samples, model.base.latent_channels())?,
            None => latent.samples.clone(),
        };
        let noise =
            initial_noise(&samples, self.noise.seed(), latent.batch_index.as_deref()).map_err(failure)?;
        let mask = latent.noise_mask.as_ref().map(|mask| DenoiseMask {
            mask: mask.clone(),
            differential: model.patches.differential_diffusion.map(|strength| Differential { strength }),
        });
        let mut run = Run::new(samples.dims(), samples.device());
        run.latent = Some(network_scale(format, &samples)?);
        run.seed = self.seed;
        run.denoise_mask = mask.as_ref().map(|m| m.mask.clone());
        let mut denoiser = self.guider.start(run)?;
        let sampling = Sampling {
            model: model.base.sampling(),
            format,
            sampler: self.sampler,
            sigmas: self.sigmas,
            noise: &noise,
            seed: self.seed,
            latent: &samples,
            mask: mask.as_ref(),
        };
        let previewer = Previewer::new(ctx, format)?;
        let mut stopped = None;
        let mut observer = |step: &Step<'_>| {
            let report = previewer
                .picture(step.denoised)
                .and_then(|picture| Ok(ctx.progress((step.index + 1) as f64, step.total as f64, picture)?));
            report.map_err(|error| {
                stopped = Some(error);
                SampleError::Interrupted
            })
        };
        let result = sampling.run(&mut denoiser, &mut observer);
        match (result, stopped) {
            (_, Some(error)) => Err(error),
            (result, None) => {
                let sampled = result.map_err(failure)?;
                let (output, denoised) = (sampled.samples, sampled.denoised);
                Ok(Sampled { output: latent.with_samples(output), denoised: latent.with_samples(denoised) })
            }
        }
    }
}

/// A latent as the network sees it; an empty one has no scale.
fn network_scale(format: Option<&LatentFormat>, samples: &Tensor) -> Result<Tensor> {
    Ok(match format {
        Some(format) if !is_empty(samples)? => format.process_in(samples)?,
        _ => samples.clone(),
    })
}

/// Why sampling failed, as a node's error.
pub(super) fn failure(error: SampleError) -> Error {
    match error {
        SampleError::Tensor(error) => Error::Tensor(error),
        SampleError::Interrupted => Error::Node(NodeError::interrupt()),
        other => Error::other(other),
    }
}
