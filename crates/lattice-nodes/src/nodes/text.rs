//! Prompts.

use std::sync::Arc;

use lattice_diffusion::conditioning::Entry;
use lattice_graph::Node;

use crate::Result;
use crate::node::node;
use crate::types::{Clip, ClipHooks, Conditioning, EncodedPrompt, PromptChunks, ScheduledClip};

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
    encoded_text(&clip, text)
}

/// A prompt cut up for the encoders, encoded: one entry, or one for each part of the sampling where hooks ask for it.
pub(super) fn encoded(clip: &Clip, chunks: &PromptChunks) -> Result<Conditioning> {
    let entries = clip.in_course()?.into_iter().map(|ScheduledClip { clip, range }| {
        let EncodedPrompt { states, pooled, mask } = clip.encode(chunks)?;
        let mut entry = Entry::new(states);
        entry.options.pooled = pooled;
        entry.options.attention_mask = mask;
        entry.options.text_range = range;
        if let Some(ClipHooks { hooks, apply_to_conditionings: true, .. }) = clip.hooks() {
            entry.options.hooks.clone_from(&hooks.0);
        }
        Ok(entry)
    });
    Ok(Conditioning(entries.collect::<Result<_>>()?))
}

/// The same text for all encoders, encoded.
pub(super) fn encoded_text(clip: &Clip, text: &str) -> Result<Conditioning> {
    encoded(clip, &clip.tokenize(|_| text)?)
}

/// Takes the prompt's states from an earlier layer of the text encoder: -2 is known as "clip skip 2".
#[node(name = "CLIPSetLastLayer", title = "CLIP Set Last Layer", category = "conditioning", module = "nodes")]
fn clip_set_last_layer(
    clip: Clip,
    #[widget(default = -1, min = -24, max = -1, step = 1)] stop_at_clip_layer: i64,
) -> Clip {
    clip.with_layer(usize::try_from(stop_at_clip_layer.unsigned_abs()).unwrap_or(usize::MAX).max(1))
}
