//! Patches of a model's inner workings: features, attention, resolution, blocks.

use std::sync::Arc;

use lattice_diffusion::guidance::{
    DeepShrink, FreeUPatch, HyperTilePatch, NegativeWithoutLayers, NetworkChange, PerturbedAttention,
    PostCfg, Range, SelfAttention, SkipLayers, TokenMergingPatch,
};
use lattice_graph::Node;
use lattice_media::resize::{Crop, Method, common_upscale};
use lattice_models::options::{Downscale, FreeU, HyperTile, Resize, SkippedBlocks, TokenMerging};

use crate::Result;
use crate::node::node;
use crate::types::Model;

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![
        free_u,
        free_u_v2,
        hyper_tile,
        tome_patch_model,
        patch_model_add_downscale,
        perturbed_attention_guidance,
        self_attention_guidance,
        skip_layer_guidance_sd3,
        skip_layer_guidance_dit,
        skip_layer_guidance_dit_simple,
        torch_compile_model,
        model_compute_dtype,
        chroma_radiance_options,
    ]
}

fn with_change(model: &Model, change: impl NetworkChange + 'static) -> Model {
    model.with_patches(|patches| patches.network.push(Arc::new(change)))
}

fn with_post(model: &Model, patch: impl PostCfg + 'static) -> Model {
    model.with_patches(|patches| patches.post.push(Arc::new(patch)))
}

/// Strengthens the backbone of a U-Net and weakens low frequencies of its skips (FreeU).
#[node(
    name = "FreeU",
    title = "FreeU",
    category = "model_patches/unet",
    module = "comfy_extras.nodes_freelunch"
)]
fn free_u(
    model: Model,
    #[widget(default = 1.1, min = 0.0, max = 10.0, step = 0.01)] b1: f64,
    #[widget(default = 1.2, min = 0.0, max = 10.0, step = 0.01)] b2: f64,
    #[widget(default = 0.9, min = 0.0, max = 10.0, step = 0.01)] s1: f64,
    #[widget(default = 0.2, min = 0.0, max = 10.0, step = 0.01)] s2: f64,
) -> Model {
    let free_u = FreeU { backbone: [b1, b2], skip: [s1, s2], structured: false };
    with_change(&model, FreeUPatch(free_u))
}

/// FreeU with the backbone strengthened where its feature map is strong.
#[node(
    name = "FreeU_V2",
    title = "FreeU_V2",
    category = "model_patches/unet",
    module = "comfy_extras.nodes_freelunch"
)]
fn free_u_v2(
    model: Model,
    #[widget(default = 1.3, min = 0.0, max = 10.0, step = 0.01)] b1: f64,
    #[widget(default = 1.4, min = 0.0, max = 10.0, step = 0.01)] b2: f64,
    #[widget(default = 0.9, min = 0.0, max = 10.0, step = 0.01)] s1: f64,
    #[widget(default = 0.2, min = 0.0, max = 10.0, step = 0.01)] s2: f64,
) -> Model {
    let free_u = FreeU { backbone: [b1, b2], skip: [s1, s2], structured: true };
    with_change(&model, FreeUPatch(free_u))
}

/// Pixels per latent cell.
const CELL: usize = 8;

/// Cuts self-attention of a U-Net into tiles, which makes large pictures faster.
#[node(name = "HyperTile", category = "model_patches/unet", module = "comfy_extras.nodes_hypertile", v3)]
fn hyper_tile(
    #[widget] model: Model,
    #[widget(default = 256, min = 1, max = 2048)] tile_size: usize,
    #[widget(default = 2, min = 1, max = 128)] swap_size: usize,
    #[widget(default = 0, min = 0, max = 10)] max_depth: usize,
    #[widget(default = false)] scale_depth: bool,
) -> Model {
    let tile_size = (tile_size / CELL).max(1);
    with_change(&model, HyperTilePatch(HyperTile { tile_size, swap_size, max_depth, scale_depth }))
}

/// Merges similar tokens for the time of a self-attention, which makes large pictures faster.
#[node(name = "TomePatchModel", category = "model_patches/unet", module = "comfy_extras.nodes_tomesd", v3)]
fn tome_patch_model(
    #[widget] model: Model,
    #[widget(default = 0.3, min = 0.0, max = 1.0, step = 0.01)] ratio: f64,
) -> Model {
    with_change(&model, TokenMergingPatch(TokenMerging { ratio }))
}

/// Makes a U-Net work at a lower resolution in the first part of sampling, so that pictures larger than it was trained on
/// hold together (deep shrink).
#[node(
    name = "PatchModelAddDownscale",
    title = "PatchModelAddDownscale (Kohya Deep Shrink)",
    category = "model_patches/unet",
    module = "comfy_extras.nodes_model_downscale",
    v3
)]
fn patch_model_add_downscale(
    #[widget] model: Model,
    #[widget(default = 3, min = 1, max = 32, step = 1)] block_number: usize,
    #[widget(default = 2.0, min = 0.1, max = 9.0, step = 0.001)] downscale_factor: f64,
    #[widget(default = 0.0, min = 0.0, max = 1.0, step = 0.001)] start_percent: f64,
    #[widget(default = 0.35, min = 0.0, max = 1.0, step = 0.001)] end_percent: f64,
    #[widget(default = true)] downscale_after_skip: bool,
    #[combo("bicubic", "nearest-exact", "bilinear", "area", "bislerp")] downscale_method: &str,
    #[combo("bicubic", "nearest-exact", "bilinear", "area", "bislerp")] upscale_method: &str,
) -> Result<Model> {
    let resize = |name: &str| -> Result<Resize> {
        let method: Method = name.parse()?;
        Ok(Resize::new(move |map, height, width| common_upscale(map, width, height, method, Crop::Disabled)))
    };
    let downscale = Downscale {
        block: block_number,
        factor: downscale_factor,
        after_skip: downscale_after_skip,
        down: resize(downscale_method)?,
        up: resize(upscale_method)?,
    };
    let range = Range { start: start_percent, end: end_percent };
    Ok(with_change(&model, DeepShrink { downscale, range }))
}

/// Guidance away from a network whose middle block sees no structure (PAG). One more call per step.
#[node(
    name = "PerturbedAttentionGuidance",
    category = "model_patches/unet",
    module = "comfy_extras.nodes_pag",
    v3
)]
fn perturbed_attention_guidance(
    #[widget] model: Model,
    #[widget(default = 3.0, min = 0.0, max = 100.0, step = 0.01, round = 0.01)] scale: f64,
) -> Model {
    with_post(&model, PerturbedAttention { scale })
}

/// Guidance away from a picture that is blurred where the network looks (SAG). One more call per step.
#[node(
    name = "SelfAttentionGuidance",
    title = "Self-Attention Guidance",
    category = "_for_testing",
    module = "comfy_extras.nodes_sag",
    v3,
    experimental
)]
fn self_attention_guidance(
    #[widget] model: Model,
    #[widget(default = 0.5, min = -2.0, max = 5.0, step = 0.01)] scale: f64,
    #[widget(default = 2.0, min = 0.0, max = 10.0, step = 0.1)] blur_sigma: f64,
) -> Model {
    let (guidance, watch) = SelfAttention::new(scale, blur_sigma);
    model.with_patches(|patches| {
        patches.network.push(watch);
        patches.post.push(Arc::new(guidance));
        patches.always_evaluate_uncond = true;
    })
}

/// Guidance away from a Stable Diffusion 3 without some of its blocks. One more call per step of the range.
#[node(
    name = "SkipLayerGuidanceSD3",
    category = "advanced/guidance",
    module = "comfy_extras.nodes_sd3",
    v3,
    experimental
)]
fn skip_layer_guidance_sd3(
    #[widget] model: Model,
    #[widget(default = "7, 8, 9", multiline = false)] layers: &str,
    #[widget(default = 3.0, min = 0.0, max = 10.0, step = 0.1)] scale: f64,
    #[widget(default = 0.01, min = 0.0, max = 1.0, step = 0.001)] start_percent: f64,
    #[widget(default = 0.15, min = 0.0, max = 1.0, step = 0.001)] end_percent: f64,
) -> Model {
    let blocks = SkippedBlocks { double: numbers(layers), single: Vec::new() };
    let range = Range { start: start_percent, end: end_percent };
    with_skipped(model, SkipLayers { blocks, scale, range, rescale: 0.0 })
}

/// Guidance away from a diffusion transformer without some of its blocks. One more call per step of the range.
#[node(
    name = "SkipLayerGuidanceDiT",
    category = "advanced/guidance",
    module = "comfy_extras.nodes_slg",
    v3,
    experimental
)]
fn skip_layer_guidance_dit(
    #[widget] model: Model,
    #[widget(default = "7, 8, 9", multiline = false)] double_layers: &str,
    #[widget(default = "7, 8, 9", multiline = false)] single_layers: &str,
    #[widget(default = 3.0, min = 0.0, max = 10.0, step = 0.1)] scale: f64,
    #[widget(default = 0.01, min = 0.0, max = 1.0, step = 0.001)] start_percent: f64,
    #[widget(default = 0.15, min = 0.0, max = 1.0, step = 0.001)] end_percent: f64,
    #[widget(default = 0.0, min = 0.0, max = 10.0, step = 0.01)] rescaling_scale: f64,
) -> Model {
    let blocks = SkippedBlocks { double: numbers(double_layers), single: numbers(single_layers) };
    let range = Range { start: start_percent, end: end_percent };
    with_skipped(model, SkipLayers { blocks, scale, range, rescale: rescaling_scale })
}

fn with_skipped(model: Model, patch: SkipLayers) -> Model {
    if patch.blocks == SkippedBlocks::default() { model } else { with_post(&model, patch) }
}

/// Predicts for the negative prompt with a diffusion transformer that lacks some of its blocks.
#[node(
    name = "SkipLayerGuidanceDiTSimple",
    category = "advanced/guidance",
    module = "comfy_extras.nodes_slg",
    v3,
    experimental
)]
fn skip_layer_guidance_dit_simple(
    #[widget] model: Model,
    #[widget(default = "7, 8, 9", multiline = false)] double_layers: &str,
    #[widget(default = "7, 8, 9", multiline = false)] single_layers: &str,
    #[widget(default = 0.0, min = 0.0, max = 1.0, step = 0.001)] start_percent: f64,
    #[widget(default = 1.0, min = 0.0, max = 1.0, step = 0.001)] end_percent: f64,
) -> Model {
    let blocks = SkippedBlocks { double: numbers(double_layers), single: numbers(single_layers) };
    if blocks == SkippedBlocks::default() {
        return model;
    }
    let range = Range { start: start_percent, end: end_percent };
    with_change(&model, NegativeWithoutLayers { blocks, range })
}

/// The numbers in a text, whatever stands between them.
fn numbers(text: &str) -> Vec<usize> {
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

/// Asks for a compiled network. Networks here are compiled with the program, so nothing changes.
#[node(
    name = "TorchCompileModel",
    category = "_for_testing",
    module = "comfy_extras.nodes_torch_compile",
    v3,
    experimental
)]
fn torch_compile_model(
    #[widget] model: Model,
    #[name("backend")]
    #[combo("inductor", "cudagraphs")]
    _backend: &str,
) -> Model {
    model
}

/// Asks for a type to compute in. Networks here compute in single precision, whatever their weights are stored in, and with a
/// narrower type the reference only loses digits, so nothing changes.
#[node(
    name = "ModelComputeDtype",
    title = "ModelComputeDtype",
    category = "advanced/debug/model",
    module = "comfy_extras.nodes_model_advanced"
)]
fn model_compute_dtype(
    model: Model,
    #[name("dtype")]
    #[choice("default", "fp32", "fp16", "bf16")]
    _dtype: &str,
) -> Model {
    model
}

/// Options of Chroma Radiance: in how many parts its last layers work, for less memory. They change no result, and the family cannot be
/// run yet.
#[node(
    name = "ChromaRadianceOptions",
    category = "model_patches/chroma_radiance",
    module = "comfy_extras.nodes_chroma_radiance",
    v3
)]
fn chroma_radiance_options(
    #[widget] model: Model,
    #[name("preserve_wrapper")]
    #[widget(default = true)]
    _preserve_wrapper: bool,
    #[name("start_sigma")]
    #[widget(default = 1.0, min = 0.0, max = 1.0)]
    _start_sigma: f64,
    #[name("end_sigma")]
    #[widget(default = 0.0, min = 0.0, max = 1.0)]
    _end_sigma: f64,
    #[name("nerf_tile_size")]
    #[widget(default = -1, min = -1)]
    _nerf_tile_size: i64,
) -> Model {
    model
}

#[cfg(test)]
mod tests {
    use super::numbers;

    #[test]
    fn lists_of_layers_may_be_written_in_any_way() {
        assert_eq!(numbers("7, 8, 9"), [7, 8, 9]);
        assert_eq!(numbers("[0;12]and 3"), [0, 12, 3]);
        assert_eq!(numbers("none"), [0usize; 0]);
        assert_eq!(numbers("99999999999999999999999, 4"), [4]);
    }
}
