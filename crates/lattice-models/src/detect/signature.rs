//! Telling networks apart by the names and shapes of their tensors.

use lattice_weights::{Scope, StateDict};

/// The network a set of tensors belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Network {
    Sd3,
    HunyuanVideo,
    Flux,
    Mochi,
    LtxVideo,
    Wan21,
    StableDiffusion,
    DiffusersUnet,
    DiffusersFlux,
    DiffusersSd3,
}

impl Network {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sd3 => "Stable Diffusion 3",
            Self::HunyuanVideo => "HunyuanVideo",
            Self::Flux => "Flux",
            Self::Mochi => "Mochi",
            Self::LtxVideo => "LTX-Video",
            Self::Wan21 => "Wan 2.1",
            Self::StableDiffusion => "Stable Diffusion U-Net",
            Self::DiffusersUnet => "diffusers U-Net",
            Self::DiffusersFlux => "diffusers Flux transformer",
            Self::DiffusersSd3 => "diffusers Stable Diffusion 3 transformer",
        }
    }
}

/// Names that all must be there for a network, in the order of testing; the first ones of each decide, the others help to
/// name the nearest family of a file that is none.
const SIGNATURES: [(Network, &[&str], &[&str]); 10] = [
    (
        Network::Sd3,
        &["joint_blocks.0.context_block.attn.qkv.weight"],
        &["joint_blocks.0.x_block.attn.qkv.weight", "x_embedder.proj.weight", "pos_embed"],
    ),
    (
        Network::HunyuanVideo,
        &["txt_in.individual_token_refiner.blocks.0.norm1.weight"],
        &["double_blocks.0.img_attn_qkv.weight", "img_in.proj.weight"],
    ),
    (
        Network::Flux,
        &["double_blocks.0.img_attn.norm.key_norm.scale", "img_in.weight"],
        &[
            "txt_in.weight",
            "vector_in.in_layer.weight",
            "single_blocks.0.linear1.weight",
            "final_layer.linear.weight",
        ],
    ),
    (Network::Mochi, &["t5_yproj.weight"], &["x_embedder.proj.weight", "blocks.0.attn.qkv_x.weight"]),
    (
        Network::LtxVideo,
        &["adaln_single.emb.timestep_embedder.linear_1.bias"],
        &["patchify_proj.weight", "transformer_blocks.0.attn2.to_k.weight"],
    ),
    (Network::Wan21, &["head.modulation"], &["patch_embedding.weight", "blocks.0.ffn.0.weight"]),
    (
        Network::StableDiffusion,
        &["input_blocks.0.0.weight"],
        &["time_embed.0.weight", "middle_block.0.in_layers.0.weight", "out.2.weight"],
    ),
    (
        Network::DiffusersUnet,
        &["down_blocks.0.resnets.0.conv1.weight", "conv_in.weight"],
        &["time_embedding.linear_1.weight", "conv_out.weight"],
    ),
    (
        Network::DiffusersFlux,
        &["transformer_blocks.0.attn.add_q_proj.weight", "x_embedder.weight"],
        &["context_embedder.weight", "proj_out.weight"],
    ),
    (
        Network::DiffusersSd3,
        &["transformer_blocks.0.attn.add_q_proj.weight", "pos_embed.proj.weight"],
        &["context_embedder.weight", "proj_out.weight"],
    ),
];

/// The prefix of the diffusion network's names: of the usual ones that with most names, if more than 5 names have it;
/// `model.` if anything has that; otherwise none.
pub(super) fn diffusion_prefix(dict: &StateDict) -> &'static str {
    let count = |prefix: &str| dict.iter().filter(|(name, _)| name.starts_with(prefix)).count();
    let mut best = ("", 5);
    for prefix in ["model.diffusion_model.", "model.model.", "net."] {
        let n = count(prefix);
        if n > best.1 {
            best = (prefix, n);
        }
    }
    match best.0 {
        "" if dict.iter().any(|(name, _)| name.starts_with("model.")) => "model.",
        prefix => prefix,
    }
}

/// The network whose names stand below `scope`.
pub(super) fn network(scope: &Scope<'_>) -> Option<Network> {
    let found = SIGNATURES.iter().find(|(network, names, _)| {
        // PixArt files share LTX's names but for this one.
        let excluded = *network == Network::LtxVideo && scope.has("pos_embed.proj.bias");
        names.iter().all(|name| scope.has(name)) && !excluded
    });
    found.map(|(network, ..)| *network)
}

/// Whether a U-Net below `scope` is a ControlNet: it has the first half of one, and convolutions that begin as zeros.
pub(super) fn is_control(scope: &Scope<'_>) -> bool {
    scope.has("zero_convs.0.0.weight") || scope.has("controlnet_down_blocks.0.weight")
}

/// The network with most characteristic names below `scope`: (network, names found, names in all, the first one missing).
pub(super) fn nearest(scope: &Scope<'_>) -> Option<(Network, usize, usize, String)> {
    let scored = SIGNATURES.iter().filter_map(|(network, must, may)| {
        let names = || must.iter().chain(may.iter());
        let found = names().filter(|name| scope.has(name)).count();
        let missing = names().find(|name| !scope.has(name))?;
        (found > 0).then(|| (*network, found, names().count(), scope.full_name(missing)))
    });
    scored.max_by(|a, b| (a.1 * b.2).cmp(&(b.1 * a.2)))
}

/// What a file without a diffusion network seems to be.
pub(super) fn other_kind(dict: &StateDict) -> Option<&'static str> {
    let any = |test: fn(&str) -> bool| dict.iter().any(|(name, _)| test(name));
    if any(|n| n.contains("lora_") || n.contains(".lora.") || n.contains("hada_w1") || n.contains("lokr_w1"))
    {
        Some("a LoRA or a file of that kind")
    } else if any(|n| n.contains("zero_convs.") || n.starts_with("controlnet_")) {
        Some("a ControlNet")
    } else if any(|n| n.contains("text_model.encoder.layers.") || n.contains("SelfAttention.q.weight")) {
        Some("a text encoder")
    } else if any(|n| n.starts_with("model.layers.") && n.ends_with(".self_attn.q_proj.weight"))
        || any(|n| n.starts_with("blk.") && n.ends_with(".attn_q.weight"))
    {
        Some("a language model (Llama or Qwen), through which no supported family reads its prompts")
    } else if any(|n| n.starts_with("decoder.") || n.starts_with("encoder.")) {
        Some("a VAE")
    } else {
        None
    }
}
