//! Prompts.

use std::sync::Arc;

use lattice_diffusion::conditioning::Entry;
use lattice_graph::Node;

use crate::Result;
use crate::node::node;
use crate::types::{Clip, Conditioning, EncodedPrompt};

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![clip_text_encode, clip_set_last_layer]
}

/// Encodes a prompt. `(words:1.2)` weighs them, `embedding:name` stands for a learned one.
#[node(
    name = "CLIPTextEncode",
    title = "CLIP Text Encode (Prompt)",
    category = "conditioning",
    module = "nodes"
)]
fn clip_text_encode(
    /// What to show, or to avoid.
    #[widget(multiline = true, dynamicPrompts = true)]
    text: &str,
    /// The text encoder of the model that will read the prompt.
    clip: Clip,
) -> Result<Conditioning> {
    Ok(conditioning(clip.encode_text(text)?))
}

/// One prompt without options.
pub(super) fn conditioning(prompt: EncodedPrompt) -> Conditioning {
    let mut entry = Entry::new(prompt.states);
    entry.options.pooled = prompt.pooled;
    entry.options.attention_mask = prompt.mask;
    Conditioning(vec![entry])
}

/// Takes the prompt's states from an earlier layer of the text encoder: -2 is known as "clip skip 2".
#[node(name = "CLIPSetLastLayer", title = "CLIP Set Last Layer", category = "conditioning", module = "nodes")]
fn clip_set_last_layer(
    clip: Clip,
    #[widget(default = -1, min = -24, max = -1, step = 1)] stop_at_clip_layer: i64,
) -> Clip {
    clip.with_layer(usize::try_from(stop_at_clip_layer.unsigned_abs()).unwrap_or(usize::MAX).max(1))
}
