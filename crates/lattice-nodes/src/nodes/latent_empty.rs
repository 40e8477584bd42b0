//! Empty latents of the model families.

use std::sync::Arc;

use lattice_graph::Node;

use super::MAX_RESOLUTION;
use crate::Result;
use crate::node::node;
use crate::tensors::filled;
use crate::types::Latent;

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![
        empty_hunyuan_image_latent,
        empty_latent_hunyuan3d,
        empty_latent_audio,
        empty_ace_step_latent_audio,
        empty_chroma_radiance_latent_image,
        stable_cascade_empty_latent_image,
        empty_hunyuan_latent_video,
        empty_mochi_latent_video,
        empty_cosmos_latent_video,
        empty_ltxv_latent_video,
    ]
}

/// A latent of zeros.
fn empty(shape: &[usize]) -> Result<Latent> {
    Ok(Latent::new(filled(shape, 0.0)?))
}

/// Latent frames of a video whose latents stand for `step` frames each but for the first.
fn frames(length: usize, step: usize) -> usize {
    length.saturating_sub(1) / step + 1
}

/// Makes empty latents for HunyuanImage: 64 channels, one cell for 32 pixels.
#[node(
    name = "EmptyHunyuanImageLatent",
    title = "EmptyHunyuanImageLatent",
    category = "latent",
    module = "comfy_extras.nodes_hunyuan"
)]
fn empty_hunyuan_image_latent(
    #[widget(default = 2048, min = 64, max = MAX_RESOLUTION, step = 32)] width: usize,
    #[widget(default = 2048, min = 64, max = MAX_RESOLUTION, step = 32)] height: usize,
    #[widget(default = 1, min = 1, max = 4096)] batch_size: usize,
) -> Result<Latent> {
    empty(&[batch_size, 64, height / 32, width / 32])
}

/// Makes empty latents for Hunyuan3D 2: 64 channels of tokens.
#[node(
    name = "EmptyLatentHunyuan3Dv2",
    title = "EmptyLatentHunyuan3Dv2",
    category = "latent/3d",
    module = "comfy_extras.nodes_hunyuan3d"
)]
fn empty_latent_hunyuan3d(
    #[widget(default = 3072, min = 1, max = 8192)] resolution: usize,
    #[widget(default = 1, min = 1, max = 4096)] batch_size: usize,
) -> Result<Latent> {
    Ok(Latent { kind: Some("hunyuan3dv2"), ..empty(&[batch_size, 64, resolution])? })
}

/// Makes empty latents for Stable Audio: 64 channels, an even number of steps of 2048 samples at 44.1 kHz.
#[node(
    name = "EmptyLatentAudio",
    title = "Empty Latent Audio",
    category = "latent/audio",
    module = "comfy_extras.nodes_audio"
)]
fn empty_latent_audio(
    #[widget(default = 47.6, min = 1.0, max = 1000.0, step = 0.1)] seconds: f64,
    #[widget(default = 1, min = 1, max = 4096)] batch_size: usize,
) -> Result<Latent> {
    let length = (seconds * 44100.0 / 2048.0 / 2.0).round_ties_even() as usize * 2;
    Ok(Latent { kind: Some("audio"), ..empty(&[batch_size, 64, length])? })
}

/// Makes empty latents for ACE-Step: 8 channels of 16 bands, steps of 4096 samples at 44.1 kHz.
#[node(name = "EmptyAceStepLatentAudio", category = "latent/audio", module = "comfy_extras.nodes_ace", v3)]
fn empty_ace_step_latent_audio(
    #[widget(default = 120.0, min = 1.0, max = 1000.0, step = 0.1)] seconds: f64,
    #[widget(default = 1, min = 1, max = 4096)] batch_size: usize,
) -> Result<Latent> {
    let length = (seconds * 44100.0 / 512.0 / 8.0) as usize;
    Ok(Latent { kind: Some("audio"), ..empty(&[batch_size, 8, 16, length])? })
}

/// Makes empty latents for Chroma Radiance, which works on pixels.
#[node(
    name = "EmptyChromaRadianceLatentImage",
    category = "latent/chroma_radiance",
    module = "comfy_extras.nodes_chroma_radiance",
    v3
)]
fn empty_chroma_radiance_latent_image(
    #[widget(default = 1024, min = 16, max = MAX_RESOLUTION, step = 16)] width: usize,
    #[widget(default = 1024, min = 16, max = MAX_RESOLUTION, step = 16)] height: usize,
    #[widget(default = 1, min = 1, max = 4096)] batch_size: usize,
) -> Result<Latent> {
    empty(&[batch_size, 3, height, width])
}

/// Makes the empty latents of both stages of Stable Cascade.
#[node(
    name = "StableCascade_EmptyLatentImage",
    category = "latent/stable_cascade",
    module = "comfy_extras.nodes_stable_cascade",
    v3,
    outputs("stage_c", "stage_b")
)]
fn stable_cascade_empty_latent_image(
    #[widget(default = 1024, min = 256, max = MAX_RESOLUTION, step = 8)] width: usize,
    #[widget(default = 1024, min = 256, max = MAX_RESOLUTION, step = 8)] height: usize,
    #[widget(default = 42, min = 4, max = 128, step = 1)] compression: usize,
    #[widget(default = 1, min = 1, max = 4096)] batch_size: usize,
) -> Result<(Latent, Latent)> {
    let compression = compression.max(1);
    Ok((
        empty(&[batch_size, 16, height / compression, width / compression])?,
        empty(&[batch_size, 4, height / 4, width / 4])?,
    ))
}

/// Makes empty video latents for HunyuanVideo and Wan: 16 channels, 4 frames and 8 pixels a cell.
#[node(
    name = "EmptyHunyuanLatentVideo",
    title = "EmptyHunyuanLatentVideo",
    category = "latent/video",
    module = "comfy_extras.nodes_hunyuan"
)]
fn empty_hunyuan_latent_video(
    #[widget(default = 848, min = 16, max = MAX_RESOLUTION, step = 16)] width: usize,
    #[widget(default = 480, min = 16, max = MAX_RESOLUTION, step = 16)] height: usize,
    #[widget(default = 25, min = 1, max = MAX_RESOLUTION, step = 4)] length: usize,
    #[widget(default = 1, min = 1, max = 4096)] batch_size: usize,
) -> Result<Latent> {
    empty(&[batch_size, 16, frames(length, 4), height / 8, width / 8])
}

/// Makes empty video latents for Mochi: 12 channels, 6 frames and 8 pixels a cell.
#[node(name = "EmptyMochiLatentVideo", category = "latent/video", module = "comfy_extras.nodes_mochi", v3)]
fn empty_mochi_latent_video(
    #[widget(default = 848, min = 16, max = MAX_RESOLUTION, step = 16)] width: usize,
    #[widget(default = 480, min = 16, max = MAX_RESOLUTION, step = 16)] height: usize,
    #[widget(default = 25, min = 7, max = MAX_RESOLUTION, step = 6)] length: usize,
    #[widget(default = 1, min = 1, max = 4096)] batch_size: usize,
) -> Result<Latent> {
    empty(&[batch_size, 12, frames(length, 6), height / 8, width / 8])
}

/// Makes empty video latents for Cosmos: 16 channels, 8 frames and 8 pixels a cell.
#[node(name = "EmptyCosmosLatentVideo", category = "latent/video", module = "comfy_extras.nodes_cosmos", v3)]
fn empty_cosmos_latent_video(
    #[widget(default = 1280, min = 16, max = MAX_RESOLUTION, step = 16)] width: usize,
    #[widget(default = 704, min = 16, max = MAX_RESOLUTION, step = 16)] height: usize,
    #[widget(default = 121, min = 1, max = MAX_RESOLUTION, step = 8)] length: usize,
    #[widget(default = 1, min = 1, max = 4096)] batch_size: usize,
) -> Result<Latent> {
    empty(&[batch_size, 16, frames(length, 8), height / 8, width / 8])
}

/// Makes empty video latents for LTX-Video: 128 channels, 8 frames and 32 pixels a cell.
#[node(name = "EmptyLTXVLatentVideo", category = "latent/video/ltxv", module = "comfy_extras.nodes_lt", v3)]
fn empty_ltxv_latent_video(
    #[widget(default = 768, min = 64, max = MAX_RESOLUTION, step = 32)] width: usize,
    #[widget(default = 512, min = 64, max = MAX_RESOLUTION, step = 32)] height: usize,
    #[widget(default = 97, min = 1, max = MAX_RESOLUTION, step = 8)] length: usize,
    #[widget(default = 1, min = 1, max = 4096)] batch_size: usize,
) -> Result<Latent> {
    empty(&[batch_size, 128, frames(length, 8), height / 32, width / 32])
}
