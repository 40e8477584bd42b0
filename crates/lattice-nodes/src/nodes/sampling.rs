//! Sampling: noise becomes a latent.

use std::sync::Arc;

use lattice_diffusion::guidance::{Guider, GuiderKind};
use lattice_diffusion::latent_format::LatentFormat;
use lattice_diffusion::model::Run;
use lattice_diffusion::sample::{DenoiseMask, Differential, Sampling, initial_noise, window};
use lattice_diffusion::samplers::{SAMPLERS, SampleError, Step, sampler_named};
use lattice_diffusion::schedules::{SCHEDULERS, Scheduler, ksampler_schedule};
use lattice_graph::{CallContext, Node, NodeError, PreviewImage};

use crate::node::node;
use crate::services::{Previews, Settings};
use crate::types::{Conditioning, Latent, Model};
use crate::{Error, Result};

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![ksampler, ksampler_advanced]
}

/// Names of the samplers, in the order of the interface.
fn sampler_names() -> impl Iterator<Item = &'static str> {
    SAMPLERS.iter().map(|s| s.name)
}

/// Names of the schedulers, in the order of the interface.
fn scheduler_names() -> impl Iterator<Item = &'static str> {
    SCHEDULERS.iter().map(|s| s.name)
}

/// Most steps that widgets offer.
const MAX_STEPS: usize = 10_000;

/// Denoises a latent with a model, guided towards one conditioning and away from another.
#[node(name = "KSampler", title = "KSampler", category = "sampling", module = "nodes")]
fn ksampler(
    ctx: &CallContext<'_>,
    /// The model that denoises.
    model: Model,
    /// Seed of the noise.
    #[widget(default = 0, min = 0, max = 18446744073709551615, control_after_generate = true)]
    seed: u64,
    /// Number of steps.
    #[widget(default = 20, min = 1, max = MAX_STEPS)]
    steps: usize,
    /// Guidance scale: how far towards the positive and away from the negative prompt.
    #[widget(default = 8.0, min = 0.0, max = 100.0, step = 0.1, round = 0.01)]
    cfg: f64,
    /// The solver.
    #[choice(sampler_names())]
    sampler_name: &str,
    /// How noise levels are spread over the steps.
    #[choice(scheduler_names())]
    scheduler: &str,
    /// What the picture is to show.
    positive: Conditioning,
    /// What it is not to show.
    negative: Conditioning,
    /// The latent to denoise.
    latent_image: Latent,
    /// Share of the schedule that is run: below 1 the start keeps something of the latent.
    #[widget(default = 1.0, min = 0.0, max = 1.0, step = 0.01)]
    denoise: f64,
) -> Result<Latent> {
    let sigmas = schedule(&model, sampler_name, scheduler, steps, denoise)?;
    let job = Job {
        model: &model,
        cfg,
        sampler_name,
        positive: &positive,
        negative: &negative,
        seed,
        add_noise: true,
    };
    job.run(ctx, &latent_image, &sigmas)
}

/// `KSampler` over a part of the steps, with or without noise of its own.
#[node(name = "KSamplerAdvanced", title = "KSampler (Advanced)", category = "sampling", module = "nodes")]
fn ksampler_advanced(
    ctx: &CallContext<'_>,
    model: Model,
    #[choice("enable", "disable")] add_noise: &str,
    #[widget(default = 0, min = 0, max = 18446744073709551615, control_after_generate = true)]
    noise_seed: u64,
    #[widget(default = 20, min = 1, max = MAX_STEPS)] steps: usize,
    #[widget(default = 8.0, min = 0.0, max = 100.0, step = 0.1, round = 0.01)] cfg: f64,
    #[choice(sampler_names())] sampler_name: &str,
    #[choice(scheduler_names())] scheduler: &str,
    positive: Conditioning,
    negative: Conditioning,
    latent_image: Latent,
    #[widget(default = 0, min = 0, max = MAX_STEPS)] start_at_step: usize,
    #[widget(default = 10000, min = 0, max = MAX_STEPS)] end_at_step: usize,
    #[choice("disable", "enable")] return_with_leftover_noise: &str,
) -> Result<Latent> {
    let sigmas = schedule(&model, sampler_name, scheduler, steps, 1.0)?;
    let sigmas = window(&sigmas, start_at_step, end_at_step, return_with_leftover_noise == "enable");
    let job = Job {
        model: &model,
        cfg,
        sampler_name,
        positive: &positive,
        negative: &negative,
        seed: noise_seed,
        add_noise: add_noise == "enable",
    };
    job.run(ctx, &latent_image, &sigmas)
}

fn schedule(model: &Model, sampler: &str, scheduler: &str, steps: usize, denoise: f64) -> Result<Vec<f32>> {
    let scheduler = Scheduler::named(scheduler).map_err(Error::other)?;
    let between = sampler_named(sampler).map_err(failure)?.drops_penultimate_sigma();
    ksampler_schedule(model.guided.base.sampling(), scheduler, steps, denoise, between).map_err(Error::other)
}

/// What the two nodes have in common.
struct Job<'a> {
    model: &'a Model,
    cfg: f64,
    sampler_name: &'a str,
    positive: &'a Conditioning,
    negative: &'a Conditioning,
    seed: u64,
    add_noise: bool,
}

impl Job<'_> {
    fn run(&self, ctx: &CallContext<'_>, latent: &Latent, sigmas: &[f32]) -> Result<Latent> {
        let format = LatentFormat::named(self.model.spec().latent_format.name());
        let samples = match format {
            Some(format) => format.fit_empty(&latent.samples, self.model.guided.base.latent_channels())?,
            None => latent.samples.clone(),
        };
        let seed = self.add_noise.then_some(self.seed);
        let noise = initial_noise(&samples, seed, latent.batch_index.as_deref()).map_err(failure)?;
        let mask = latent.noise_mask.as_ref().map(|mask| DenoiseMask {
            mask: mask.clone(),
            differential: self
                .model
                .guided
                .patches
                .differential_diffusion
                .map(|strength| Differential { strength }),
        });
        let scaled = match format {
            Some(format) if !lattice_diffusion::latent_format::is_empty(&samples)? => {
                format.process_in(&samples)?
            }
            _ => samples.clone(),
        };
        let guider = Guider {
            model: self.model.guided.clone(),
            kind: GuiderKind::Cfg {
                positive: self.positive.0.clone(),
                negative: self.negative.0.clone(),
                cfg: self.cfg,
            },
        };
        let mut run = Run::new(samples.dims(), samples.device());
        run.latent = Some(scaled);
        run.denoise_mask = mask.as_ref().map(|m| m.mask.clone());
        let mut denoiser = guider.start(run)?;
        let sampler = sampler_named(self.sampler_name).map_err(failure)?;
        let sampling = Sampling {
            model: self.model.guided.base.sampling(),
            format,
            sampler: sampler.as_ref(),
            sigmas,
            noise: &noise,
            seed: self.seed,
            latent: &samples,
            mask: mask.as_ref(),
        };
        let settings = ctx.service::<Settings>()?;
        let mut stopped = None;
        let mut observer = |step: &Step<'_>| {
            let report = preview(&settings, format, step)
                .and_then(|picture| Ok(ctx.progress((step.index + 1) as f64, step.total as f64, picture)?));
            report.map_err(|error| {
                stopped = Some(error);
                SampleError::Interrupted
            })
        };
        let result = sampling.run(&mut denoiser, &mut observer);
        match (result, stopped) {
            (_, Some(error)) => Err(error),
            (result, None) => Ok(latent.with_samples(result.map_err(failure)?.samples)),
        }
    }
}

/// A picture of a step's prediction, if previews are wanted and the format has a linear map to colours.
fn preview(
    settings: &Settings,
    format: Option<&LatentFormat>,
    step: &Step<'_>,
) -> Result<Option<PreviewImage>> {
    let Some(format) = format.filter(|_| settings.previews != Previews::None) else { return Ok(None) };
    let Some(picture) = format.preview(step.denoised)? else { return Ok(None) };
    let size = (picture.width, picture.height);
    let file = lattice_media::jpeg::encode_fitted(&picture.rgb, size, settings.preview_size, 95)
        .map_err(Error::other)?;
    Ok(Some(PreviewImage { mime: "image/jpeg", data: file.into() }))
}

/// Why sampling failed, as a node's error.
fn failure(error: SampleError) -> Error {
    match error {
        SampleError::Tensor(error) => Error::Tensor(error),
        SampleError::Interrupted => Error::Node(NodeError::interrupt()),
        other => Error::other(other),
    }
}
