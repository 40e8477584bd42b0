//! OpenCLIP's names for text towers, brought to the Hugging Face names that [`super::ClipText`] and adapters use.

use indexmap::IndexMap;
use lattice_weights::{Scope, StateDict, StoredDType, Weight, recode};

use crate::convert::{concat_rows, transpose};
use crate::error::Built;
use crate::layers::ScopeExt;

/// Layers of a block, in OpenCLIP's names and in those used here.
const LAYERS: [(&str, &str); 5] = [
    ("ln_1", "layer_norm1"),
    ("ln_2", "layer_norm2"),
    ("attn.out_proj", "self_attn.out_proj"),
    ("mlp.c_fc", "mlp.fc1"),
    ("mlp.c_proj", "mlp.fc2"),
];

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
    blocks(&scope.at("transformer").at("resblocks"), "text_model", &mut put)?;
    if let Some(projection) = scope.optional("text_projection") {
        put("text_projection.weight".into(), transpose(&projection)?);
    }
    let dict = scope.dict();
    Ok(StateDict::new(dict.source(), out, dict.metadata().clone()))
}

/// The numbered blocks below `blocks` under the names that they have below `to`.
pub(crate) fn blocks(blocks: &Scope<'_>, to: &str, mut put: impl FnMut(String, Weight)) -> Built<()> {
    for i in 0..blocks.count() {
        let (block, to) = (blocks.at(i), format!("{to}.encoder.layers.{i}"));
        for (theirs, ours) in LAYERS {
            for end in ["weight", "bias"] {
                put(format!("{to}.{ours}.{end}"), block.weight(&format!("{theirs}.{end}"))?);
            }
        }
        for (fused, end, rank) in [("attn.in_proj_weight", "weight", 2), ("attn.in_proj_bias", "bias", 1)] {
            let rows = block.shape(fused, rank)?[0];
            if rows % 3 != 0 {
                let name = block.full_name(fused);
                return Err(blocks.invalid(format!("`{name}`: {rows} rows are not query, key and value")));
            }
            for (part, ours) in ["q_proj", "k_proj", "v_proj"].into_iter().enumerate() {
                let weight = block.weight(fused)?.narrow_rows(part * rows / 3, rows / 3)?;
                put(format!("{to}.self_attn.{ours}.{end}"), weight);
            }
        }
    }
    Ok(())
}

/// The vision tower below `scope` under Hugging Face names.
pub fn vision_from_openclip(scope: &Scope<'_>) -> Built<StateDict> {
    let mut out = IndexMap::new();
    let mut put = |name: String, weight: Weight| {
        out.insert(name, weight);
    };
    let model = "vision_model";
    put(format!("{model}.embeddings.patch_embedding.weight"), scope.weight("conv1.weight")?);
    put(format!("{model}.embeddings.class_embedding"), scope.weight("class_embedding")?);
    put(format!("{model}.embeddings.position_embedding.weight"), scope.weight("positional_embedding")?);
    // The published name has this spelling.
    for (theirs, ours) in [("ln_pre", "pre_layrnorm"), ("ln_post", "post_layernorm")] {
        for end in ["weight", "bias"] {
            put(format!("{model}.{ours}.{end}"), scope.weight(&format!("{theirs}.{end}"))?);
        }
    }
    blocks(&scope.at("transformer").at("resblocks"), model, &mut put)?;
    if let Some(projection) = scope.optional("proj") {
        put("visual_projection.weight".into(), transpose(&projection)?);
    }
    let dict = scope.dict();
    Ok(StateDict::new(dict.source(), out, dict.metadata().clone()))
}

/// The opposite: a tower under Hugging Face names below `scope`, under OpenCLIP's. Query, key and value are joined, which
/// copies them.
pub fn to_openclip(scope: &Scope<'_>) -> Built<StateDict> {
    let mut out = IndexMap::new();
    let mut put = |name: String, weight: Weight| {
        out.insert(name, weight);
    };
    let model = scope.at("text_model");
    let embeddings = model.at("embeddings");
    put("positional_embedding".into(), embeddings.weight("position_embedding.weight")?);
    put("token_embedding.weight".into(), embeddings.weight("token_embedding.weight")?);
    let blocks = model.at("encoder").at("layers");
    for i in 0..blocks.count() {
        let (block, to) = (blocks.at(i), format!("transformer.resblocks.{i}"));
        for end in ["weight", "bias"] {
            let parts = ["q_proj", "k_proj", "v_proj"]
                .into_iter()
                .map(|name| block.weight(&format!("self_attn.{name}.{end}")))
                .collect::<Result<Vec<_>, _>>()?;
            put(format!("{to}.attn.in_proj_{end}"), joined(&parts)?);
            for (theirs, ours) in LAYERS {
                put(format!("{to}.{theirs}.{end}"), block.weight(&format!("{ours}.{end}"))?);
            }
        }
    }
    for end in ["weight", "bias"] {
        put(format!("ln_final.{end}"), model.weight(&format!("final_layer_norm.{end}"))?);
    }
    if let Some(projection) = scope.optional("text_projection.weight") {
        put("text_projection".into(), transpose(&plain(&projection)?)?);
    }
    let dict = scope.dict();
    Ok(StateDict::new(dict.source(), out, dict.metadata().clone()))
}

/// Rows one after another; as halves where the parts are stored in different ways.
fn joined(parts: &[Weight]) -> Built<Weight> {
    let alike = parts.windows(2).all(|p| p[0].dtype() == p[1].dtype() && p[0].scale() == p[1].scale());
    if alike {
        return Ok(concat_rows(parts)?);
    }
    Ok(concat_rows(&parts.iter().map(halves).collect::<Built<Vec<_>>>()?)?)
}

/// Without blocks, whose rows cannot become columns.
fn plain(weight: &Weight) -> Built<Weight> {
    if matches!(weight.dtype(), StoredDType::Block(_)) { halves(weight) } else { Ok(weight.clone()) }
}

fn halves(weight: &Weight) -> Built<Weight> {
    let mut bytes = Vec::with_capacity(weight.elem_count() * 2);
    recode(weight, StoredDType::F16, &mut bytes).map_err(candle_core::Error::from)?;
    Ok(Weight::new(StoredDType::F16, weight.shape().clone(), bytes.into(), None)?)
}
