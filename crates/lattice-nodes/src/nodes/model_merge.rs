//! Weighted sums of models. A merge is a list of patches: nothing is computed before the result runs or is saved.

use std::sync::Arc;

use lattice_graph::Node;
use lattice_weights::patcher::PatchSet;

use crate::Result;
use crate::node::node;
use crate::types::{Clip, Model};

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![
        model_merge_simple,
        model_merge_add,
        model_merge_subtract,
        clip_merge_simple,
        clip_merge_add,
        clip_merge_subtract,
    ]
}

/// Mixes two models of one family: ratio times the first plus the rest of the second.
#[node(
    name = "ModelMergeSimple",
    title = "ModelMergeSimple",
    category = "advanced/model_merging",
    module = "comfy_extras.nodes_model_merging"
)]
fn model_merge_simple(
    model1: Model,
    model2: Model,
    #[widget(default = 1.0, min = 0.0, max = 1.0, step = 0.01)] ratio: f64,
) -> Result<Model> {
    merged(&model1, &model2, |_| (ratio, 1.0 - ratio))
}

/// Adds the weights of a second model, such as a difference that ModelMergeSubtract made.
#[node(
    name = "ModelMergeAdd",
    title = "ModelMergeAdd",
    category = "advanced/model_merging",
    module = "comfy_extras.nodes_model_merging"
)]
fn model_merge_add(model1: Model, model2: Model) -> Result<Model> {
    merged(&model1, &model2, |_| (1.0, 1.0))
}

/// The difference of two models, times the multiplier.
#[node(
    name = "ModelMergeSubtract",
    title = "ModelMergeSubtract",
    category = "advanced/model_merging",
    module = "comfy_extras.nodes_model_merging"
)]
fn model_merge_subtract(
    model1: Model,
    model2: Model,
    #[widget(default = 1.0, min = -10.0, max = 10.0, step = 0.01)] multiplier: f64,
) -> Result<Model> {
    merged(&model1, &model2, |_| (multiplier, -multiplier))
}

/// Mixes two text encoders: ratio times the first plus the rest of the second.
#[node(
    name = "CLIPMergeSimple",
    title = "CLIPMergeSimple",
    category = "advanced/model_merging",
    module = "comfy_extras.nodes_model_merging"
)]
fn clip_merge_simple(
    clip1: Clip,
    clip2: Clip,
    #[widget(default = 1.0, min = 0.0, max = 1.0, step = 0.01)] ratio: f64,
) -> Clip {
    merged_clip(&clip1, &clip2, (ratio, 1.0 - ratio))
}

/// Adds the weights of a second text encoder.
#[node(
    name = "CLIPMergeAdd",
    title = "CLIPMergeAdd",
    category = "advanced/model_merging",
    module = "comfy_extras.nodes_model_merging"
)]
fn clip_merge_add(clip1: Clip, clip2: Clip) -> Clip {
    merged_clip(&clip1, &clip2, (1.0, 1.0))
}

/// The difference of two text encoders, times the multiplier.
#[node(
    name = "CLIPMergeSubtract",
    title = "CLIPMergeSubtract",
    category = "advanced/model_merging",
    module = "comfy_extras.nodes_model_merging"
)]
fn clip_merge_subtract(
    clip1: Clip,
    clip2: Clip,
    #[widget(default = 1.0, min = -10.0, max = 10.0, step = 0.01)] multiplier: f64,
) -> Clip {
    merged_clip(&clip1, &clip2, (multiplier, -multiplier))
}

/// `factors` gives for a tensor's name what the two models' weights are multiplied by.
pub(super) fn merged(model: &Model, other: &Model, factors: impl Fn(&str) -> (f64, f64)) -> Result<Model> {
    let set = PatchSet::merge(&model.patched, &other.patched, |name| Some(factors(name)));
    model.with_adapter(Arc::new(set))
}

/// Encoders that only one of the two has stay as they are, and so do tensors that are no learned weights.
fn merged_clip(clip: &Clip, other: &Clip, factors: (f64, f64)) -> Clip {
    let kept = |name: &str| name.ends_with("position_ids") || name.ends_with("logit_scale");
    let encoders = clip.encoders().iter().map(|encoder| {
        match other.encoders().iter().find(|e| e.part.kind == encoder.part.kind) {
            Some(second) => {
                let set = PatchSet::merge(&encoder.patched, &second.patched, |name| {
                    (!kept(name)).then_some(factors)
                });
                encoder.with_adapter(Arc::new(set))
            }
            None => encoder.clone(),
        }
    });
    clip.with_encoders(encoders.collect())
}
