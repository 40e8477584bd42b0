//! Everything that a conditioning can be given in one node, for one list or a pair of lists.

use std::sync::Arc;

use lattice_graph::Node;

use super::conditioning::{MaskArea, changed};
use crate::node::node;
use crate::types::{Conditioning, Hooks, Mask, TimestepsRange};

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![
        conditioning_set_properties,
        conditioning_set_properties_and_combine,
        pair_conditioning_set_properties,
        pair_conditioning_set_properties_and_combine,
        conditioning_set_default_combine,
        pair_conditioning_set_default_combine,
        pair_conditioning_combine,
    ]
}

/// What a conditioning is given.
struct Properties {
    strength: f64,
    area: MaskArea,
    mask: Option<Mask>,
    hooks: Option<Hooks>,
    timesteps: Option<TimestepsRange>,
}

impl Properties {
    /// Hooks are added to those that are there. The strength is the mask's if there is one.
    fn of(&self, conditioning: &Conditioning) -> Conditioning {
        changed(conditioning, |options| {
            if let Some(Hooks(hooks)) = &self.hooks {
                options.hooks.extend(hooks.iter().cloned());
            }
            if let Some(mask) = &self.mask {
                options.set_mask(mask.0.clone(), self.strength, self.area == MaskArea::Bounds);
            } else {
                options.strength = self.strength;
            }
            if let Some(TimestepsRange { start, end }) = self.timesteps {
                (options.start_percent, options.end_percent) = (Some(start), Some(end));
            }
        })
    }
}

fn combined(first: Conditioning, second: Conditioning) -> Conditioning {
    Conditioning([first.0, second.0].concat())
}

/// Gives a prompt a strength, and perhaps a mask, hooks and a part of the sampling.
#[node(
    name = "ConditioningSetProperties",
    title = "Cond Set Props",
    category = "advanced/hooks/cond single",
    module = "comfy_extras.nodes_hooks",
    experimental
)]
fn conditioning_set_properties(
    #[name("cond_NEW")] cond: Conditioning,
    #[widget(default = 1.0, min = 0.0, max = 10.0, step = 0.01)] strength: f64,
    set_cond_area: MaskArea,
    mask: Option<Mask>,
    hooks: Option<Hooks>,
    timesteps: Option<TimestepsRange>,
) -> Conditioning {
    Properties { strength, area: set_cond_area, mask, hooks, timesteps }.of(&cond)
}

/// Gives a prompt properties and evaluates it beside another.
#[node(
    name = "ConditioningSetPropertiesAndCombine",
    title = "Cond Set Props Combine",
    category = "advanced/hooks/cond single",
    module = "comfy_extras.nodes_hooks",
    experimental
)]
fn conditioning_set_properties_and_combine(
    cond: Conditioning,
    #[name("cond_NEW")] new: Conditioning,
    #[widget(default = 1.0, min = 0.0, max = 10.0, step = 0.01)] strength: f64,
    set_cond_area: MaskArea,
    mask: Option<Mask>,
    hooks: Option<Hooks>,
    timesteps: Option<TimestepsRange>,
) -> Conditioning {
    let properties = Properties { strength, area: set_cond_area, mask, hooks, timesteps };
    combined(cond, properties.of(&new))
}

/// Gives a positive and a negative prompt the same properties.
#[node(
    name = "PairConditioningSetProperties",
    title = "Cond Pair Set Props",
    category = "advanced/hooks/cond pair",
    module = "comfy_extras.nodes_hooks",
    outputs("positive", "negative"),
    experimental
)]
fn pair_conditioning_set_properties(
    #[name("positive_NEW")] positive: Conditioning,
    #[name("negative_NEW")] negative: Conditioning,
    #[widget(default = 1.0, min = 0.0, max = 10.0, step = 0.01)] strength: f64,
    set_cond_area: MaskArea,
    mask: Option<Mask>,
    hooks: Option<Hooks>,
    timesteps: Option<TimestepsRange>,
) -> (Conditioning, Conditioning) {
    let properties = Properties { strength, area: set_cond_area, mask, hooks, timesteps };
    (properties.of(&positive), properties.of(&negative))
}

/// Gives a positive and a negative prompt the same properties, and evaluates them beside others.
#[node(
    name = "PairConditioningSetPropertiesAndCombine",
    title = "Cond Pair Set Props Combine",
    category = "advanced/hooks/cond pair",
    module = "comfy_extras.nodes_hooks",
    outputs("positive", "negative"),
    experimental
)]
#[expect(clippy::too_many_arguments, reason = "the node has these inputs")]
fn pair_conditioning_set_properties_and_combine(
    positive: Conditioning,
    negative: Conditioning,
    #[name("positive_NEW")] new_positive: Conditioning,
    #[name("negative_NEW")] new_negative: Conditioning,
    #[widget(default = 1.0, min = 0.0, max = 10.0, step = 0.01)] strength: f64,
    set_cond_area: MaskArea,
    mask: Option<Mask>,
    hooks: Option<Hooks>,
    timesteps: Option<TimestepsRange>,
) -> (Conditioning, Conditioning) {
    let properties = Properties { strength, area: set_cond_area, mask, hooks, timesteps };
    (combined(positive, properties.of(&new_positive)), combined(negative, properties.of(&new_negative)))
}

/// A prompt that applies where the others of its list leave room.
fn as_default(conditioning: &Conditioning, hooks: Option<&Hooks>) -> Conditioning {
    changed(conditioning, |options| {
        options.default = true;
        options.hooks.extend(hooks.iter().flat_map(|hooks| hooks.0.iter().cloned()));
    })
}

/// Adds prompts that apply where the others leave room: their weight is what those leave of 1.
#[node(
    name = "ConditioningSetDefaultCombine",
    title = "Cond Set Default Combine",
    category = "advanced/hooks/cond single",
    module = "comfy_extras.nodes_hooks",
    experimental
)]
fn conditioning_set_default_combine(
    cond: Conditioning,
    #[name("cond_DEFAULT")] default: Conditioning,
    hooks: Option<Hooks>,
) -> Conditioning {
    combined(cond, as_default(&default, hooks.as_ref()))
}

/// Adds a positive and a negative prompt that apply where the others leave room.
#[node(
    name = "PairConditioningSetDefaultCombine",
    title = "Cond Pair Set Default Combine",
    category = "advanced/hooks/cond pair",
    module = "comfy_extras.nodes_hooks",
    outputs("positive", "negative"),
    experimental
)]
fn pair_conditioning_set_default_combine(
    positive: Conditioning,
    negative: Conditioning,
    #[name("positive_DEFAULT")] default_positive: Conditioning,
    #[name("negative_DEFAULT")] default_negative: Conditioning,
    hooks: Option<Hooks>,
) -> (Conditioning, Conditioning) {
    let hooks = hooks.as_ref();
    (
        combined(positive, as_default(&default_positive, hooks)),
        combined(negative, as_default(&default_negative, hooks)),
    )
}

/// Evaluates two positive and two negative prompts beside each other.
#[node(
    name = "PairConditioningCombine",
    title = "Cond Pair Combine",
    category = "advanced/hooks/cond pair",
    module = "comfy_extras.nodes_hooks",
    outputs("positive", "negative"),
    experimental
)]
fn pair_conditioning_combine(
    #[name("positive_A")] positive_a: Conditioning,
    #[name("negative_A")] negative_a: Conditioning,
    #[name("positive_B")] positive_b: Conditioning,
    #[name("negative_B")] negative_b: Conditioning,
) -> (Conditioning, Conditioning) {
    (combined(positive_a, positive_b), combined(negative_a, negative_b))
}
