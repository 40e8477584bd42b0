//! Conditionings: combining encoded prompts, and where, when and how strongly they apply.

use std::sync::Arc;

use lattice_diffusion::conditioning::edit::{self, with_options};
use lattice_diffusion::conditioning::{Area, Guidance, Options};
use lattice_graph::Node;
use lattice_models::network::ReferencePlacement;

use super::MAX_RESOLUTION;
use crate::node::{Choice, node};
use crate::types::{Conditioning, Latent, Mask};
use crate::{Error, Result};

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![
        conditioning_combine,
        conditioning_average,
        conditioning_concat,
        conditioning_set_area,
        conditioning_set_area_percentage,
        conditioning_set_area_percentage_video,
        conditioning_set_area_strength,
        conditioning_set_mask,
        conditioning_zero_out,
        conditioning_set_timestep_range,
        flux_guidance,
        flux_disable_guidance,
        reference_latent,
        flux_kontext_multi_reference_latent_method,
    ]
}

pub(super) fn changed(conditioning: &Conditioning, change: impl Fn(&mut Options)) -> Conditioning {
    Conditioning(with_options(&conditioning.0, change))
}

/// Evaluates both prompts at every step and mixes what the model predicts for them.
#[node(
    name = "ConditioningCombine",
    title = "Conditioning (Combine)",
    category = "conditioning",
    module = "nodes"
)]
fn conditioning_combine(conditioning_1: Conditioning, conditioning_2: Conditioning) -> Conditioning {
    Conditioning([conditioning_1.0, conditioning_2.0].concat())
}

/// Mixes the states of two prompts into one.
#[node(
    name = "ConditioningAverage",
    title = "ConditioningAverage",
    category = "conditioning",
    module = "nodes"
)]
fn conditioning_average(
    conditioning_to: Conditioning,
    conditioning_from: Conditioning,
    #[widget(default = 1.0, min = 0.0, max = 1.0, step = 0.01)] conditioning_to_strength: f64,
) -> Result<Conditioning> {
    Ok(Conditioning(edit::average(&conditioning_to.0, &conditioning_from.0, conditioning_to_strength)?))
}

/// Appends the second prompt's tokens to each of the first.
#[node(
    name = "ConditioningConcat",
    title = "Conditioning (Concat)",
    category = "conditioning",
    module = "nodes"
)]
fn conditioning_concat(
    conditioning_to: Conditioning,
    conditioning_from: Conditioning,
) -> Result<Conditioning> {
    Ok(Conditioning(edit::concat(&conditioning_to.0, &conditioning_from.0)?))
}

/// Restricts a prompt to a rectangle of the picture, in pixels.
#[node(
    name = "ConditioningSetArea",
    title = "Conditioning (Set Area)",
    category = "conditioning",
    module = "nodes"
)]
fn conditioning_set_area(
    conditioning: Conditioning,
    #[widget(default = 64, min = 64, max = MAX_RESOLUTION, step = 8)] width: usize,
    #[widget(default = 64, min = 64, max = MAX_RESOLUTION, step = 8)] height: usize,
    #[widget(default = 0, min = 0, max = MAX_RESOLUTION, step = 8)] x: usize,
    #[widget(default = 0, min = 0, max = MAX_RESOLUTION, step = 8)] y: usize,
    #[widget(default = 1.0, min = 0.0, max = 10.0, step = 0.01)] strength: f64,
) -> Conditioning {
    let area = Area::from_pixels(height, width, y, x);
    changed(&conditioning, |options| options.set_area(area.clone(), strength))
}

/// Restricts a prompt to a rectangle, in shares of the picture.
#[node(
    name = "ConditioningSetAreaPercentage",
    title = "Conditioning (Set Area with Percentage)",
    category = "conditioning",
    module = "nodes"
)]
fn conditioning_set_area_percentage(
    conditioning: Conditioning,
    #[widget(default = 1.0, min = 0, max = 1.0, step = 0.01)] width: f64,
    #[widget(default = 1.0, min = 0, max = 1.0, step = 0.01)] height: f64,
    #[widget(default = 0, min = 0, max = 1.0, step = 0.01)] x: f64,
    #[widget(default = 0, min = 0, max = 1.0, step = 0.01)] y: f64,
    #[widget(default = 1.0, min = 0.0, max = 10.0, step = 0.01)] strength: f64,
) -> Conditioning {
    let area = Area::Fraction { size: vec![height, width], offset: vec![y, x] };
    changed(&conditioning, |options| options.set_area(area.clone(), strength))
}

/// Restricts a prompt to a box of a video, in shares of its frames and their size.
#[node(
    name = "ConditioningSetAreaPercentageVideo",
    title = "ConditioningSetAreaPercentageVideo",
    category = "conditioning",
    module = "comfy_extras.nodes_video_model"
)]
fn conditioning_set_area_percentage_video(
    conditioning: Conditioning,
    #[widget(default = 1.0, min = 0, max = 1.0, step = 0.01)] width: f64,
    #[widget(default = 1.0, min = 0, max = 1.0, step = 0.01)] height: f64,
    #[widget(default = 1.0, min = 0, max = 1.0, step = 0.01)] temporal: f64,
    #[widget(default = 0, min = 0, max = 1.0, step = 0.01)] x: f64,
    #[widget(default = 0, min = 0, max = 1.0, step = 0.01)] y: f64,
    #[widget(default = 0, min = 0, max = 1.0, step = 0.01)] z: f64,
    #[widget(default = 1.0, min = 0.0, max = 10.0, step = 0.01)] strength: f64,
) -> Conditioning {
    let area = Area::Fraction { size: vec![temporal, height, width], offset: vec![z, y, x] };
    changed(&conditioning, |options| options.set_area(area.clone(), strength))
}

/// Weighs a prompt against the others of its list.
#[node(
    name = "ConditioningSetAreaStrength",
    title = "ConditioningSetAreaStrength",
    category = "conditioning",
    module = "nodes"
)]
fn conditioning_set_area_strength(
    conditioning: Conditioning,
    #[widget(default = 1.0, min = 0.0, max = 10.0, step = 0.01)] strength: f64,
) -> Conditioning {
    changed(&conditioning, |options| options.strength = strength)
}

/// Where a masked conditioning is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Choice)]
pub(super) enum MaskArea {
    /// Everywhere.
    #[choice("default")]
    Whole,
    /// In the mask's bounding box.
    #[choice("mask bounds")]
    Bounds,
}

/// Weighs a prompt by a mask.
#[node(
    name = "ConditioningSetMask",
    title = "Conditioning (Set Mask)",
    category = "conditioning",
    module = "nodes"
)]
fn conditioning_set_mask(
    conditioning: Conditioning,
    mask: Mask,
    #[widget(default = 1.0, min = 0.0, max = 10.0, step = 0.01)] strength: f64,
    set_cond_area: MaskArea,
) -> Conditioning {
    let bounds = set_cond_area == MaskArea::Bounds;
    changed(&conditioning, |options| options.set_mask(mask.0.clone(), strength, bounds))
}

/// Replaces a prompt by zeros, as some models are trained to see no prompt.
#[node(
    name = "ConditioningZeroOut",
    title = "ConditioningZeroOut",
    category = "advanced/conditioning",
    module = "nodes"
)]
fn conditioning_zero_out(conditioning: Conditioning) -> Result<Conditioning> {
    Ok(Conditioning(edit::zero_out(&conditioning.0)?))
}

/// Restricts a prompt to a part of the sampling, 0 its start and 1 its end.
#[node(
    name = "ConditioningSetTimestepRange",
    title = "ConditioningSetTimestepRange",
    category = "advanced/conditioning",
    module = "nodes"
)]
fn conditioning_set_timestep_range(
    conditioning: Conditioning,
    #[widget(default = 0.0, min = 0.0, max = 1.0, step = 0.001)] start: f64,
    #[widget(default = 1.0, min = 0.0, max = 1.0, step = 0.001)] end: f64,
) -> Conditioning {
    changed(&conditioning, |options| {
        (options.start_percent, options.end_percent) = (Some(start), Some(end));
    })
}

/// Sets the guidance scale that distilled models take as an input.
#[node(
    name = "FluxGuidance",
    category = "advanced/conditioning/flux",
    module = "comfy_extras.nodes_flux",
    v3
)]
fn flux_guidance(
    #[widget] conditioning: Conditioning,
    #[widget(default = 3.5, min = 0.0, max = 100.0, step = 0.1)] guidance: f64,
) -> Conditioning {
    changed(&conditioning, |options| options.guidance = Guidance::Scale(guidance))
}

/// Takes the guidance input of distilled models away.
#[node(
    name = "FluxDisableGuidance",
    category = "advanced/conditioning/flux",
    module = "comfy_extras.nodes_flux",
    v3
)]
fn flux_disable_guidance(#[widget] conditioning: Conditioning) -> Conditioning {
    changed(&conditioning, |options| options.guidance = Guidance::Off)
}

/// Shows an editing model one more picture.
#[node(
    name = "ReferenceLatent",
    category = "advanced/conditioning/edit_models",
    module = "comfy_extras.nodes_edit_model",
    v3
)]
fn reference_latent(
    #[widget] conditioning: Conditioning,
    /// The picture, encoded. Without it nothing changes.
    #[widget]
    latent: Option<Latent>,
) -> Conditioning {
    let Some(latent) = latent else { return conditioning };
    changed(&conditioning, |options| options.references.push(latent.samples.clone()))
}

/// How pictures that an editing model is shown are placed beside the one it makes.
#[node(
    name = "FluxKontextMultiReferenceLatentMethod",
    category = "advanced/conditioning/flux",
    module = "comfy_extras.nodes_flux",
    v3,
    experimental
)]
fn flux_kontext_multi_reference_latent_method(
    #[widget] conditioning: Conditioning,
    #[combo("offset", "index", "uxo/uno")] reference_latents_method: &str,
) -> Result<Conditioning> {
    let placement = match reference_latents_method {
        "offset" => ReferencePlacement::Offset,
        "index" => ReferencePlacement::Index,
        // Workflows name it by whichever of the two papers they follow.
        other if other.contains("uxo") || other.contains("uso") => ReferencePlacement::Diagonal,
        other => return Err(Error::value(format!("pictures cannot be placed by {other:?}"))),
    };
    Ok(changed(&conditioning, |options| options.reference_placement = placement))
}
