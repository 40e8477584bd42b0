//! Noise schedules.

use std::sync::Arc;

use lattice_diffusion::schedules::curves::{self, Ltxv};
use lattice_diffusion::schedules::{ScheduleError, Scheduler, basic_schedule, tables};
use lattice_graph::Node;

use super::model_sampling::tokens;
use super::sampling::{MAX_STEPS, scheduler_names};
use crate::node::node;
use crate::types::{Latent, Model, Sigmas};
use crate::{Error, Result};

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![
        basic_scheduler,
        karras_scheduler,
        exponential_scheduler,
        polyexponential_scheduler,
        laplace_scheduler,
        vp_scheduler,
        beta_sampling_scheduler,
        sd_turbo_scheduler,
        align_your_steps_scheduler,
        gits_scheduler,
        ltxv_scheduler,
        optimal_steps_scheduler,
    ]
}

fn sigmas(levels: Result<Vec<f32>, ScheduleError>) -> Result<Sigmas> {
    levels.map(Sigmas::from).map_err(Error::other)
}

/// A schedule by its name, over a model's noise levels.
#[node(
    name = "BasicScheduler",
    title = "BasicScheduler",
    category = "sampling/custom_sampling/schedulers",
    module = "comfy_extras.nodes_custom_sampler"
)]
fn basic_scheduler(
    model: Model,
    #[choice(scheduler_names())] scheduler: &str,
    #[widget(default = 20, min = 1, max = MAX_STEPS)] steps: usize,
    #[widget(default = 1.0, min = 0.0, max = 1.0, step = 0.01)] denoise: f64,
) -> Result<Sigmas> {
    let scheduler = Scheduler::named(scheduler).map_err(Error::other)?;
    sigmas(basic_schedule(model.guided.base.sampling(), scheduler, steps, denoise))
}

/// Levels whose 1/rho-th powers are equally spaced: more steps at low noise.
#[node(
    name = "KarrasScheduler",
    title = "KarrasScheduler",
    category = "sampling/custom_sampling/schedulers",
    module = "comfy_extras.nodes_custom_sampler"
)]
fn karras_scheduler(
    #[widget(default = 20, min = 1, max = MAX_STEPS)] steps: usize,
    #[widget(default = 14.614642, min = 0.0, max = 5000.0, step = 0.01, round = false)] sigma_max: f64,
    #[widget(default = 0.0291675, min = 0.0, max = 5000.0, step = 0.01, round = false)] sigma_min: f64,
    #[widget(default = 7.0, min = 0.0, max = 100.0, step = 0.01, round = false)] rho: f64,
) -> Result<Sigmas> {
    sigmas(curves::karras(steps, sigma_min, sigma_max, rho))
}

/// Levels whose logarithms are equally spaced.
#[node(
    name = "ExponentialScheduler",
    title = "ExponentialScheduler",
    category = "sampling/custom_sampling/schedulers",
    module = "comfy_extras.nodes_custom_sampler"
)]
fn exponential_scheduler(
    #[widget(default = 20, min = 1, max = MAX_STEPS)] steps: usize,
    #[widget(default = 14.614642, min = 0.0, max = 5000.0, step = 0.01, round = false)] sigma_max: f64,
    #[widget(default = 0.0291675, min = 0.0, max = 5000.0, step = 0.01, round = false)] sigma_min: f64,
) -> Result<Sigmas> {
    sigmas(curves::exponential(steps, sigma_min, sigma_max))
}

/// Levels whose logarithms follow a power of the step.
#[node(
    name = "PolyexponentialScheduler",
    title = "PolyexponentialScheduler",
    category = "sampling/custom_sampling/schedulers",
    module = "comfy_extras.nodes_custom_sampler"
)]
fn polyexponential_scheduler(
    #[widget(default = 20, min = 1, max = MAX_STEPS)] steps: usize,
    #[widget(default = 14.614642, min = 0.0, max = 5000.0, step = 0.01, round = false)] sigma_max: f64,
    #[widget(default = 0.0291675, min = 0.0, max = 5000.0, step = 0.01, round = false)] sigma_min: f64,
    #[widget(default = 1.0, min = 0.0, max = 100.0, step = 0.01, round = false)] rho: f64,
) -> Result<Sigmas> {
    sigmas(curves::polyexponential(steps, sigma_min, sigma_max, rho))
}

/// Quantiles of a Laplace distribution of the level's logarithm: most steps about `mu`. It does not end in 0.
#[node(
    name = "LaplaceScheduler",
    title = "LaplaceScheduler",
    category = "sampling/custom_sampling/schedulers",
    module = "comfy_extras.nodes_custom_sampler"
)]
fn laplace_scheduler(
    #[widget(default = 20, min = 1, max = MAX_STEPS)] steps: usize,
    #[widget(default = 14.614642, min = 0.0, max = 5000.0, step = 0.01, round = false)] sigma_max: f64,
    #[widget(default = 0.0291675, min = 0.0, max = 5000.0, step = 0.01, round = false)] sigma_min: f64,
    #[widget(default = 0.0, min = -10.0, max = 10.0, step = 0.1, round = false)] mu: f64,
    #[widget(default = 0.5, min = 0.0, max = 10.0, step = 0.1, round = false)] beta: f64,
) -> Result<Sigmas> {
    sigmas(curves::laplace(steps, sigma_min, sigma_max, mu, beta))
}

/// Levels of the continuous variance-preserving process.
#[node(
    name = "VPScheduler",
    title = "VPScheduler",
    category = "sampling/custom_sampling/schedulers",
    module = "comfy_extras.nodes_custom_sampler"
)]
fn vp_scheduler(
    #[widget(default = 20, min = 1, max = MAX_STEPS)] steps: usize,
    #[widget(default = 19.9, min = 0.0, max = 5000.0, step = 0.01, round = false)] beta_d: f64,
    #[widget(default = 0.1, min = 0.0, max = 5000.0, step = 0.01, round = false)] beta_min: f64,
    #[widget(default = 0.001, min = 0.0, max = 1.0, step = 0.0001, round = false)] eps_s: f64,
) -> Result<Sigmas> {
    sigmas(curves::vp(steps, beta_d, beta_min, eps_s))
}

/// A model's levels at the quantiles of a beta distribution: with both numbers below 1, most at the ends.
#[node(
    name = "BetaSamplingScheduler",
    title = "BetaSamplingScheduler",
    category = "sampling/custom_sampling/schedulers",
    module = "comfy_extras.nodes_custom_sampler"
)]
fn beta_sampling_scheduler(
    model: Model,
    #[widget(default = 20, min = 1, max = MAX_STEPS)] steps: usize,
    #[widget(default = 0.6, min = 0.0, max = 50.0, step = 0.01, round = false)] alpha: f64,
    #[widget(default = 0.6, min = 0.0, max = 50.0, step = 0.01, round = false)] beta: f64,
) -> Result<Sigmas> {
    sigmas(curves::beta_sampling(model.guided.base.sampling(), steps, alpha, beta))
}

/// The steps that SD-Turbo and SDXL-Turbo were distilled to.
#[node(
    name = "SDTurboScheduler",
    title = "SDTurboScheduler",
    category = "sampling/custom_sampling/schedulers",
    module = "comfy_extras.nodes_custom_sampler"
)]
fn sd_turbo_scheduler(
    model: Model,
    #[widget(default = 1, min = 1, max = 10)] steps: usize,
    #[widget(default = 1.0, min = 0, max = 1.0, step = 0.01)] denoise: f64,
) -> Result<Sigmas> {
    sigmas(curves::sd_turbo(model.guided.base.sampling(), steps, denoise))
}

/// Levels optimised for a model family (Align Your Steps), ten steps or resampled.
#[node(
    name = "AlignYourStepsScheduler",
    category = "sampling/custom_sampling/schedulers",
    module = "comfy_extras.nodes_align_your_steps",
    v3
)]
fn align_your_steps_scheduler(
    #[combo("SD1", "SDXL", "SVD")] model_type: &str,
    #[widget(default = 10, min = 1, max = MAX_STEPS)] steps: usize,
    #[widget(default = 1.0, min = 0.0, max = 1.0, step = 0.01)] denoise: f64,
) -> Result<Sigmas> {
    sigmas(tables::align_your_steps(model_type, steps, denoise))
}

/// Levels optimised by the geometry of sampling trajectories (GITS).
#[node(
    name = "GITSScheduler",
    category = "sampling/custom_sampling/schedulers",
    module = "comfy_extras.nodes_gits",
    v3
)]
fn gits_scheduler(
    /// Larger: more steps at high noise.
    #[widget(default = 1.2, min = 0.8, max = 1.5, step = 0.05)]
    coeff: f64,
    #[widget(default = 10, min = 2, max = 1000)] steps: usize,
    #[widget(default = 1.0, min = 0.0, max = 1.0, step = 0.01)] denoise: f64,
) -> Result<Sigmas> {
    sigmas(tables::gits(coeff, steps, denoise))
}

/// The schedule of LTX-Video: the larger the latent, the more steps at high noise.
#[node(
    name = "LTXVScheduler",
    category = "sampling/custom_sampling/schedulers",
    module = "comfy_extras.nodes_lt",
    v3
)]
fn ltxv_scheduler(
    #[widget(default = 20, min = 1, max = MAX_STEPS)] steps: usize,
    /// Shift at 4096 tokens.
    #[widget(default = 2.05, min = 0.0, max = 100.0, step = 0.01)]
    max_shift: f64,
    /// Shift at 1024 tokens.
    #[widget(default = 0.95, min = 0.0, max = 100.0, step = 0.01)]
    base_shift: f64,
    /// Stretch the levels so that the last above 0 is `terminal`.
    #[widget(default = true)]
    stretch: bool,
    /// The last level above 0 after stretching.
    #[widget(default = 0.1, min = 0.0, max = 0.99, step = 0.01)]
    terminal: f64,
    /// The latent to be denoised: its size sets the shift.
    #[widget]
    latent: Option<Latent>,
) -> Result<Sigmas> {
    let settings = Ltxv { max_shift, base_shift, stretch, terminal, tokens: tokens(latent.as_ref()) };
    sigmas(curves::ltxv(steps, &settings))
}

/// Levels of optimal step size for a model family, resampled to the number of steps.
#[node(
    name = "OptimalStepsScheduler",
    category = "sampling/custom_sampling/schedulers",
    module = "comfy_extras.nodes_optimalsteps",
    v3
)]
fn optimal_steps_scheduler(
    #[combo("FLUX", "Wan", "Chroma")] model_type: &str,
    #[widget(default = 20, min = 3, max = 1000)] steps: usize,
    #[widget(default = 1.0, min = 0.0, max = 1.0, step = 0.01)] denoise: f64,
) -> Result<Sigmas> {
    sigmas(tables::optimal_steps(model_type, steps, denoise))
}
