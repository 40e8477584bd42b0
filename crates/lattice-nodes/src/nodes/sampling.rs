//! Sampling: noise becomes a latent.

use std::sync::Arc;

use lattice_diffusion::guidance::{Guider, GuiderKind};
use lattice_diffusion::sample::window;
use lattice_diffusion::samplers::{SAMPLERS, Sampler, sampler_named};
use lattice_diffusion::schedules::{SCHEDULERS, Scheduler, ksampler_schedule};
use lattice_graph::{CallContext, Node};

use super::sampling_run::{Job, failure};
use crate::node::node;
use crate::types::{Conditioning, Latent, Model, Noise};
use crate::{Error, Result};

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![ksampler, ksampler_advanced]
}

/// Names of the samplers, in the order of the interface.
pub(super) fn sampler_names() -> impl Iterator<Item = &'static str> {
    SAMPLERS.iter().map(|s| s.name)
}

/// Names of the schedulers, in the order of the interface.
pub(super) fn scheduler_names() -> impl Iterator<Item = &'static str> {
    SCHEDULERS.iter().map(|s| s.name)
}

/// Most steps that widgets offer.
pub(super) const MAX_STEPS: usize = 10_000;

/// Classifier-free guidance with a model.
pub(super) fn cfg_guider(model: &Model, positive: Conditioning, negative: Conditioning, cfg: f64) -> Guider {
    let kind = GuiderKind::Cfg { positive: positive.0, negative: negative.0, cfg };
    Guider { model: model.guided.clone(), kind }
}

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
    let sampler = sampler_named(sampler_name).map_err(failure)?;
    let sigmas = schedule(&model, &*sampler, scheduler, steps, denoise)?;
    let job = Job {
        guider: cfg_guider(&model, positive, negative, cfg),
        sampler: &*sampler,
        sigmas: &sigmas,
        noise: Noise::Random { seed },
        seed,
    };
    Ok(job.run(ctx, &latent_image)?.output)
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
    let sampler = sampler_named(sampler_name).map_err(failure)?;
    let sigmas = schedule(&model, &*sampler, scheduler, steps, 1.0)?;
    let sigmas = window(&sigmas, start_at_step, end_at_step, return_with_leftover_noise == "enable");
    let job = Job {
        guider: cfg_guider(&model, positive, negative, cfg),
        sampler: &*sampler,
        sigmas: &sigmas,
        noise: if add_noise == "enable" { Noise::Random { seed: noise_seed } } else { Noise::Disabled },
        seed: noise_seed,
    };
    Ok(job.run(ctx, &latent_image)?.output)
}

/// The noise levels of a number of steps; some solvers want them a little different.
fn schedule(
    model: &Model,
    sampler: &dyn Sampler,
    scheduler: &str,
    steps: usize,
    denoise: f64,
) -> Result<Vec<f32>> {
    let scheduler = Scheduler::named(scheduler).map_err(Error::other)?;
    let between = sampler.drops_penultimate_sigma();
    ksampler_schedule(model.guided.base.sampling(), scheduler, steps, denoise, between).map_err(Error::other)
}
