//! Prompts.

use std::sync::Arc;

use lattice_graph::Node;

use crate::node::node;
use crate::types::Clip;

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![clip_set_last_layer]
}

/// Takes the prompt's states from an earlier layer of the text encoder: -2 is known as "clip skip 2".
#[node(name = "CLIPSetLastLayer", title = "CLIP Set Last Layer", category = "conditioning", module = "nodes")]
fn clip_set_last_layer(
    clip: Clip,
    #[widget(default = -1, min = -24, max = -1, step = 1)] stop_at_clip_layer: i64,
) -> Clip {
    clip.with_layer(usize::try_from(stop_at_clip_layer.unsigned_abs()).unwrap_or(usize::MAX).max(1))
}
