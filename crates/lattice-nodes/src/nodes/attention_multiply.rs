//! Experiments: projections of attentions, scaled.

use std::sync::Arc;

use lattice_graph::Node;
use lattice_weights::patcher::PatchSet;

use crate::Result;
use crate::node::node;
use crate::types::{Clip, Model};

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![
        unet_self_attention_multiply,
        unet_cross_attention_multiply,
        clip_attention_multiply,
        unet_temporal_attention_multiply,
    ]
}

/// The factor of the projection that a parameter belongs to: `names` are those of query, key, value and output.
fn factor_of(parameter: &str, names: [&str; 4], factors: [f64; 4]) -> f64 {
    let module = parameter.strip_suffix(".weight").or_else(|| parameter.strip_suffix(".bias"));
    let found = module.and_then(|module| names.iter().position(|name| module.ends_with(name)));
    found.map_or(1.0, |i| factors[i])
}

fn scaled(model: &Model, factor: impl Fn(&str) -> f64) -> Result<Model> {
    model.with_adapter(Arc::new(PatchSet::scale(&model.patched, factor)))
}

/// Scales the projections of a U-Net's self-attentions.
#[node(
    name = "UNetSelfAttentionMultiply",
    category = "_for_testing/attention_experiments",
    module = "comfy_extras.nodes_attention_multiply",
    v3,
    experimental
)]
fn unet_self_attention_multiply(
    #[widget] model: Model,
    #[widget(default = 1.0, min = 0.0, max = 10.0, step = 0.01)] q: f64,
    #[widget(default = 1.0, min = 0.0, max = 10.0, step = 0.01)] k: f64,
    #[widget(default = 1.0, min = 0.0, max = 10.0, step = 0.01)] v: f64,
    #[widget(default = 1.0, min = 0.0, max = 10.0, step = 0.01)] out: f64,
) -> Result<Model> {
    let names = [".attn1.to_q", ".attn1.to_k", ".attn1.to_v", ".attn1.to_out.0"];
    scaled(&model, |parameter| factor_of(parameter, names, [q, k, v, out]))
}

/// Scales the projections of a U-Net's attentions to the text.
#[node(
    name = "UNetCrossAttentionMultiply",
    category = "_for_testing/attention_experiments",
    module = "comfy_extras.nodes_attention_multiply",
    v3,
    experimental
)]
fn unet_cross_attention_multiply(
    #[widget] model: Model,
    #[widget(default = 1.0, min = 0.0, max = 10.0, step = 0.01)] q: f64,
    #[widget(default = 1.0, min = 0.0, max = 10.0, step = 0.01)] k: f64,
    #[widget(default = 1.0, min = 0.0, max = 10.0, step = 0.01)] v: f64,
    #[widget(default = 1.0, min = 0.0, max = 10.0, step = 0.01)] out: f64,
) -> Result<Model> {
    let names = [".attn2.to_q", ".attn2.to_k", ".attn2.to_v", ".attn2.to_out.0"];
    scaled(&model, |parameter| factor_of(parameter, names, [q, k, v, out]))
}

/// Scales the projections of text encoders' attentions.
#[node(
    name = "CLIPAttentionMultiply",
    category = "_for_testing/attention_experiments",
    module = "comfy_extras.nodes_attention_multiply",
    v3,
    experimental
)]
fn clip_attention_multiply(
    #[widget] clip: Clip,
    #[widget(default = 1.0, min = 0.0, max = 10.0, step = 0.01)] q: f64,
    #[widget(default = 1.0, min = 0.0, max = 10.0, step = 0.01)] k: f64,
    #[widget(default = 1.0, min = 0.0, max = 10.0, step = 0.01)] v: f64,
    #[widget(default = 1.0, min = 0.0, max = 10.0, step = 0.01)] out: f64,
) -> Clip {
    let names = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"];
    let encoders = clip.encoders().iter().map(|encoder| {
        let factor = |parameter: &str| factor_of(parameter, names, [q, k, v, out]);
        encoder.with_adapter(Arc::new(PatchSet::scale(&encoder.patched, factor)))
    });
    clip.with_encoders(encoders.collect())
}

/// Scales the outputs of a video U-Net's attentions, apart for those within frames and those between frames.
#[node(
    name = "UNetTemporalAttentionMultiply",
    category = "_for_testing/attention_experiments",
    module = "comfy_extras.nodes_attention_multiply",
    v3,
    experimental
)]
fn unet_temporal_attention_multiply(
    #[widget] model: Model,
    #[widget(default = 1.0, min = 0.0, max = 10.0, step = 0.01)] self_structural: f64,
    #[widget(default = 1.0, min = 0.0, max = 10.0, step = 0.01)] self_temporal: f64,
    #[widget(default = 1.0, min = 0.0, max = 10.0, step = 0.01)] cross_structural: f64,
    #[widget(default = 1.0, min = 0.0, max = 10.0, step = 0.01)] cross_temporal: f64,
) -> Result<Model> {
    scaled(&model, |parameter| {
        let temporal = parameter.contains(".time_stack.");
        let factors = match (parameter.contains("attn1.to_out.0."), parameter.contains("attn2.to_out.0.")) {
            (true, _) => [self_structural, self_temporal],
            (_, true) => [cross_structural, cross_temporal],
            _ => [1.0; 2],
        };
        factors[usize::from(temporal)]
    })
}

#[cfg(test)]
mod tests {
    use super::factor_of;

    #[test]
    fn parameters_are_known_by_their_module() {
        let names = [".attn1.to_q", ".attn1.to_k", ".attn1.to_v", ".attn1.to_out.0"];
        let factor = |parameter| factor_of(parameter, names, [2.0, 3.0, 4.0, 5.0]);
        assert_eq!(factor("middle_block.1.transformer_blocks.0.attn1.to_q.weight"), 2.0);
        assert_eq!(factor("input_blocks.1.1.transformer_blocks.0.attn1.to_out.0.bias"), 5.0);
        assert_eq!(factor("input_blocks.1.1.transformer_blocks.0.attn2.to_q.weight"), 1.0);
        assert_eq!(factor("input_blocks.1.1.transformer_blocks.0.attn1.to_q.alpha"), 1.0);
    }
}
