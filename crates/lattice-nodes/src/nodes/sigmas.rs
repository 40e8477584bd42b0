//! Editing noise schedules.

use std::sync::Arc;

use lattice_diffusion::schedules::edit::{self, Spacing};
use lattice_graph::Node;

use crate::node::node;
use crate::types::{Model, Sigmas};
use crate::{Error, Result};

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![
        split_sigmas,
        split_sigmas_denoise,
        flip_sigmas,
        set_first_sigma,
        extend_intermediate_sigmas,
        sampling_percent_to_sigma,
    ]
}

fn pair((high, low): (&[f32], &[f32])) -> (Sigmas, Sigmas) {
    (high.into(), low.into())
}

/// Cuts a schedule in two after a number of steps.
#[node(
    name = "SplitSigmas",
    title = "SplitSigmas",
    category = "sampling/custom_sampling/sigmas",
    module = "comfy_extras.nodes_custom_sampler",
    outputs("high_sigmas", "low_sigmas")
)]
fn split_sigmas(
    sigmas: Sigmas,
    #[widget(default = 0, min = 0, max = 10000)] step: usize,
) -> (Sigmas, Sigmas) {
    pair(edit::split(&sigmas.0, step))
}

/// Cuts the last steps off a schedule, a share of all.
#[node(
    name = "SplitSigmasDenoise",
    title = "SplitSigmasDenoise",
    category = "sampling/custom_sampling/sigmas",
    module = "comfy_extras.nodes_custom_sampler",
    outputs("high_sigmas", "low_sigmas")
)]
fn split_sigmas_denoise(
    sigmas: Sigmas,
    #[widget(default = 1.0, min = 0.0, max = 1.0, step = 0.01)] denoise: f64,
) -> (Sigmas, Sigmas) {
    pair(edit::split_denoise(&sigmas.0, denoise))
}

/// Turns a schedule around, so that a solver goes from a picture to noise.
#[node(
    name = "FlipSigmas",
    title = "FlipSigmas",
    category = "sampling/custom_sampling/sigmas",
    module = "comfy_extras.nodes_custom_sampler"
)]
fn flip_sigmas(sigmas: Sigmas) -> Sigmas {
    edit::flip(&sigmas.0).into()
}

/// Replaces a schedule's first level.
#[node(
    name = "SetFirstSigma",
    title = "SetFirstSigma",
    category = "sampling/custom_sampling/sigmas",
    module = "comfy_extras.nodes_custom_sampler"
)]
fn set_first_sigma(
    sigmas: Sigmas,
    #[widget(default = 136.0, min = 0.0, max = 20000.0, step = 0.001, round = false)] sigma: f64,
) -> Result<Sigmas> {
    edit::set_first(&sigmas.0, sigma).map(Sigmas::from).map_err(Error::other)
}

/// Makes several steps of each that starts between two levels.
#[node(
    name = "ExtendIntermediateSigmas",
    title = "ExtendIntermediateSigmas",
    category = "sampling/custom_sampling/sigmas",
    module = "comfy_extras.nodes_custom_sampler"
)]
fn extend_intermediate_sigmas(
    sigmas: Sigmas,
    #[widget(default = 2, min = 1, max = 100)] steps: usize,
    #[widget(default = -1.0, min = -1.0, max = 20000.0, step = 0.01, round = false)] start_at_sigma: f64,
    #[widget(default = 12.0, min = 0.0, max = 20000.0, step = 0.01, round = false)] end_at_sigma: f64,
    #[choice("linear", "cosine", "sine")] spacing: &str,
) -> Result<Sigmas> {
    let spacing = Spacing::named(spacing)
        .ok_or_else(|| Error::value(format!("levels cannot be spaced by {spacing:?}")))?;
    let extended = edit::extend_intermediate(&sigmas.0, steps, start_at_sigma, end_at_sigma, spacing);
    extended.map(Sigmas::from).map_err(Error::other)
}

/// The noise level after a share of the sampling.
#[node(
    name = "SamplingPercentToSigma",
    title = "SamplingPercentToSigma",
    category = "sampling/custom_sampling/sigmas",
    module = "comfy_extras.nodes_custom_sampler",
    outputs("sigma_value")
)]
fn sampling_percent_to_sigma(
    #[widget] model: Model,
    #[widget(default = 0.0, min = 0.0, max = 1.0, step = 0.0001)] sampling_percent: f64,
    /// At 0 and 1 the model's own highest and lowest level, not values beyond them.
    #[widget(default = false)]
    return_actual_sigma: bool,
) -> f64 {
    let levels = model.guided.base.sampling();
    if return_actual_sigma {
        levels.percent_to_actual_sigma(sampling_percent)
    } else {
        levels.percent_to_sigma(sampling_percent)
    }
}
