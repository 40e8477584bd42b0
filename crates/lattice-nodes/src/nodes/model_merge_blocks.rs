//! Merging with a ratio for each part of the network. The classes differ in the parts that they name only.

use std::sync::Arc;

use lattice_graph::{CallContext, InputKind, InputSpec, Inputs, Node, NodeError, NodeOutput, NodeSpec};
use serde_json::json;

use super::model_merge::merged;
use crate::node::{Arguments, finish, object, output_specs};
use crate::types::Model;

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    let general = MergeBlocks::new(
        "ModelMergeBlocks",
        "input middle out",
        "comfy_extras.nodes_model_merging",
        "advanced/model_merging",
    );
    let families = FAMILIES.iter().map(|(name, parts)| {
        MergeBlocks::new(
            name,
            parts,
            "comfy_extras.nodes_model_merging_model_specific",
            "advanced/model_merging/model_specific",
        )
    });
    std::iter::once(general).chain(families).map(|class| Arc::new(class) as Arc<dyn Node>).collect()
}

/// Classes and the beginnings of tensor names that their inputs are named after; `#n` stands for the numbers below n.
const FAMILIES: [(&str, &str); 15] = [
    ("ModelMergeSD1", "time_embed. label_emb. input_blocks.#12. middle_block.#3. output_blocks.#12. out."),
    ("ModelMergeSD2", "time_embed. label_emb. input_blocks.#12. middle_block.#3. output_blocks.#12. out."),
    ("ModelMergeSDXL", "time_embed. label_emb. input_blocks.#9 middle_block.#3 output_blocks.#9 out."),
    (
        "ModelMergeSD3_2B",
        "pos_embed. x_embedder. context_embedder. y_embedder. t_embedder. joint_blocks.#24. final_layer.",
    ),
    (
        "ModelMergeAuraflow",
        "init_x_linear. positional_encoding cond_seq_linear. register_tokens t_embedder. double_layers.#4. \
         single_layers.#32. modF. final_linear.",
    ),
    (
        "ModelMergeFlux1",
        "img_in. time_in. guidance_in vector_in. txt_in. double_blocks.#19. single_blocks.#38. final_layer.",
    ),
    (
        "ModelMergeSD35_Large",
        "pos_embed. x_embedder. context_embedder. y_embedder. t_embedder. joint_blocks.#38. final_layer.",
    ),
    (
        "ModelMergeMochiPreview",
        "pos_frequencies. t_embedder. t5_y_embedder. t5_yproj. blocks.#48. final_layer.",
    ),
    (
        "ModelMergeLTXV",
        "patchify_proj. adaln_single. caption_projection. transformer_blocks.#28. scale_shift_table proj_out.",
    ),
    (
        "ModelMergeCosmos7B",
        "pos_embedder. extra_pos_embedder. x_embedder. t_embedder. affline_norm. blocks.block#28. final_layer.",
    ),
    (
        "ModelMergeCosmos14B",
        "pos_embedder. extra_pos_embedder. x_embedder. t_embedder. affline_norm. blocks.block#36. final_layer.",
    ),
    (
        "ModelMergeWAN2_1",
        "patch_embedding. time_embedding. time_projection. text_embedding. img_emb. blocks.#40. head.",
    ),
    (
        "ModelMergeCosmosPredict2_2B",
        "pos_embedder. x_embedder. t_embedder. t_embedding_norm. blocks.#28. final_layer.",
    ),
    (
        "ModelMergeCosmosPredict2_14B",
        "pos_embedder. x_embedder. t_embedder. t_embedding_norm. blocks.#36. final_layer.",
    ),
    (
        "ModelMergeQwenImage",
        "pos_embeds. img_in. txt_norm. txt_in. time_text_embed. transformer_blocks.#60. proj_out.",
    ),
];

/// The names that a pattern of [`FAMILIES`] stands for.
fn expand(pattern: &str) -> Vec<String> {
    let Some((before, rest)) = pattern.split_once('#') else { return vec![pattern.to_owned()] };
    let digits = rest.trim_end_matches('.');
    let after = &rest[digits.len()..];
    let count = digits.parse().unwrap_or(0);
    (0..count).map(|i: usize| format!("{before}{i}{after}")).collect()
}

/// A class that takes a ratio for each of several beginnings of names.
struct MergeBlocks {
    spec: NodeSpec,
    parts: Vec<String>,
}

impl MergeBlocks {
    fn new(name: &str, parts: &str, module: &str, category: &str) -> Self {
        let parts: Vec<String> = parts.split_whitespace().flat_map(expand).collect();
        let input = |name: &str, kind: &str, options| InputSpec {
            name: name.to_owned(),
            kind: InputKind::Type(kind.to_owned()),
            optional: false,
            options,
        };
        let ratio = object([
            ("default", json!(1.0)),
            ("min", json!(0.0)),
            ("max", json!(1.0)),
            ("step", json!(0.01)),
        ]);
        let models = ["model1", "model2"].map(|name| input(name, "MODEL", None));
        let ratios = parts.iter().map(|part| input(part, "FLOAT", Some(ratio.clone())));
        let spec = NodeSpec {
            name: name.to_owned(),
            display_name: Some(name.to_owned()),
            description: "Mixes two models of one family with a ratio for each part of the network, 1 being the first \
                          model. A tensor gets the ratio of the longest input name that its own begins with; what no \
                          name covers gets the first ratio."
                .to_owned(),
            category: category.to_owned(),
            module: module.to_owned(),
            inputs: models.into_iter().chain(ratios).collect(),
            outputs: output_specs::<Model>(&[], &[]),
            ..NodeSpec::default()
        };
        Self { spec, parts }
    }
}

impl Node for MergeBlocks {
    fn spec(&self) -> &NodeSpec {
        &self.spec
    }

    fn call(&self, _ctx: &CallContext<'_>, inputs: Inputs) -> Result<NodeOutput, NodeError> {
        let mut arguments = Arguments::new(inputs);
        let (model, other): (Model, Model) = (arguments.one("model1")?, arguments.one("model2")?);
        let ratios =
            self.parts.iter().map(|part| arguments.one(part)).collect::<Result<Vec<f64>, NodeError>>()?;
        finish(merged(&model, &other, |name| {
            let covering = self.parts.iter().zip(&ratios).filter(|(part, _)| name.starts_with(part.as_str()));
            let longest = covering.max_by_key(|(part, _)| part.len());
            let ratio = longest.map(|(_, ratio)| ratio).or(ratios.first()).copied().unwrap_or(1.0);
            (ratio, 1.0 - ratio)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stand_for_numbered_names() {
        assert_eq!(expand("out."), ["out."]);
        assert_eq!(expand("blocks.block#2."), ["blocks.block0.", "blocks.block1."]);
        assert_eq!(expand("input_blocks.#2"), ["input_blocks.0", "input_blocks.1"]);
    }
}
