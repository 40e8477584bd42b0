//! T5 under the names of llama.cpp's GGUF files, in which its quantised encoders are published.

use indexmap::IndexMap;
use lattice_weights::StateDict;

/// Names outside the blocks.
const OUTSIDE: [(&str, &str); 2] =
    [("token_embd.weight", "shared.weight"), ("enc.output_norm.weight", "encoder.final_layer_norm.weight")];

/// Names in `enc.blk.N.`, and in `encoder.block.N.layer.`.
const IN_BLOCK: [(&str, &str); 10] = [
    ("attn_q", "0.SelfAttention.q"),
    ("attn_k", "0.SelfAttention.k"),
    ("attn_v", "0.SelfAttention.v"),
    ("attn_o", "0.SelfAttention.o"),
    ("attn_rel_b", "0.SelfAttention.relative_attention_bias"),
    ("attn_norm", "0.layer_norm"),
    ("ffn_gate", "1.DenseReluDense.wi_0"),
    ("ffn_up", "1.DenseReluDense.wi_1"),
    ("ffn_down", "1.DenseReluDense.wo"),
    ("ffn_norm", "1.layer_norm"),
];

/// The same tensors under Hugging Face's names, if the file is a T5 encoder of llama.cpp. Tensors of other names (a decoder's) are left
/// out.
pub fn from_llama_cpp(dict: &StateDict) -> Option<StateDict> {
    if !dict.contains("enc.blk.0.attn_q.weight") {
        return None;
    }
    let renamed = dict.iter().filter_map(|(name, weight)| Some((published(name)?, weight.clone())));
    let tensors: IndexMap<_, _> = renamed.collect();
    Some(StateDict::new(dict.source(), tensors, dict.metadata().clone()))
}

fn published(name: &str) -> Option<String> {
    if let Some((_, theirs)) = OUTSIDE.iter().find(|(ours, _)| *ours == name) {
        return Some((*theirs).to_owned());
    }
    let (block, part) = name.strip_prefix("enc.blk.")?.split_once('.')?;
    let part = part.strip_suffix(".weight")?;
    let (_, theirs) = IN_BLOCK.iter().find(|(ours, _)| *ours == part)?;
    Some(format!("encoder.block.{block}.layer.{theirs}.weight"))
}
