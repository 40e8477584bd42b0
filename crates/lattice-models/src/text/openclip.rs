//! OpenCLIP's names for text towers, brought to the Hugging Face names that [`super::ClipText`] and adapters use.

use indexmap::IndexMap;
use lattice_weights::{Scope, StateDict, Weight};

use crate::convert::transpose;
use crate::error::Built;
use crate::layers::ScopeExt;

/// Whether the tensors below `scope` have OpenCLIP's names.
pub fn is_openclip(scope: &Scope<'_>) -> bool {
    scope.has("transformer.resblocks.0.ln_1.weight")
}

/// The tower below `scope` under Hugging Face names. Fused query, key and value matrices are split without copying; only
/// the projection, stored transposed, is copied.
pub fn from_openclip(scope: &Scope<'_>) -> Built<StateDict> {
    let mut out = IndexMap::new();
    let mut put = |name: String, weight: Weight| {
        out.insert(name, weight);
    };
    let embeddings = "text_model.embeddings";
    put(format!("{embeddings}.token_embedding.weight"), scope.weight("token_embedding.weight")?);
    put(format!("{embeddings}.position_embedding.weight"), scope.weight("positional_embedding")?);
    for end in ["weight", "bias"] {
        put(format!("text_model.final_layer_norm.{end}"), scope.weight(&format!("ln_final.{end}"))?);
    }
    let blocks = scope.at("transformer").at("resblocks");
    for i in 0..blocks.count() {
        let (block, to) = (blocks.at(i), format!("text_model.encoder.layers.{i}"));
        let copies = [
            ("ln_1", "layer_norm1"),
            ("ln_2", "layer_norm2"),
            ("attn.out_proj", "self_attn.out_proj"),
            ("mlp.c_fc", "mlp.fc1"),
            ("mlp.c_proj", "mlp.fc2"),
        ];
        for (theirs, ours) in copies {
            for end in ["weight", "bias"] {
                put(format!("{to}.{ours}.{end}"), block.weight(&format!("{theirs}.{end}"))?);
            }
        }
        for (fused, end, rank) in [("attn.in_proj_weight", "weight", 2), ("attn.in_proj_bias", "bias", 1)] {
            let rows = block.shape(fused, rank)?[0];
            if rows % 3 != 0 {
                let name = block.full_name(fused);
                return Err(scope.invalid(format!("`{name}`: {rows} rows are not query, key and value")));
            }
            for (part, ours) in ["q_proj", "k_proj", "v_proj"].into_iter().enumerate() {
                let weight = block.weight(fused)?.narrow_rows(part * rows / 3, rows / 3)?;
                put(format!("{to}.self_attn.{ours}.{end}"), weight);
            }
        }
    }
    if let Some(projection) = scope.optional("text_projection") {
        put("text_projection.weight".into(), transpose(&projection)?);
    }
    let dict = scope.dict();
    Ok(StateDict::new(dict.source(), out, dict.metadata().clone()))
}
