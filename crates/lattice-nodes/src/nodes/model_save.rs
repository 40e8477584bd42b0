//! Models to files, their patches worked in.

use std::collections::BTreeMap;
use std::sync::Arc;

use lattice_graph::{CallContext, Node};
use lattice_models::assemble::{Assembly, single_text_encoder, single_vae};
use lattice_models::detect::{Family, ModelSpec, Prediction};
use lattice_weights::adapters::extract::{self, Difference};
use lattice_weights::{StateDict, safetensors};

use super::image_files::metadata;
use crate::node::{Choice, node};
use crate::services::{Folders, OutputNames, Root};
use crate::types::{Clip, ClipVision, Model, Vae};
use crate::{Error, Result};

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![checkpoint_save, image_only_checkpoint_save, model_save, clip_save, vae_save, lora_save]
}

/// Saves a diffusion model, its text encoders and its VAE as one checkpoint in the output folder.
#[node(
    name = "CheckpointSave",
    title = "Save Checkpoint",
    category = "advanced/model_merging",
    module = "comfy_extras.nodes_model_merging",
    output_node,
    hidden(prompt, extra_pnginfo)
)]
fn checkpoint_save(
    ctx: &CallContext<'_>,
    model: Model,
    clip: Clip,
    vae: Vae,
    #[widget(default = "checkpoints/ComfyUI")] filename_prefix: &str,
) -> Result<()> {
    let mut assembly = Assembly::new(model.spec(), &model.weights()?);
    for encoder in clip.encoders() {
        ctx.check_interrupt()?;
        assembly = assembly.text_encoder(encoder.part.kind, &encoder.weights()?).map_err(Error::other)?;
    }
    let assembly = assembly.vae(vae_weights(&vae)?);
    save(ctx, filename_prefix, |title| {
        let mut metadata = description(&model, title);
        metadata.extend(workflow(ctx)?);
        Ok(assembly.finish(title, metadata))
    })
}

/// Saves a diffusion model that starts from a picture, its vision tower and its VAE as one checkpoint in the output folder.
#[node(
    name = "ImageOnlyCheckpointSave",
    title = "ImageOnlyCheckpointSave",
    category = "advanced/model_merging",
    module = "comfy_extras.nodes_video_model",
    output_node,
    hidden(prompt, extra_pnginfo)
)]
fn image_only_checkpoint_save(
    ctx: &CallContext<'_>,
    model: Model,
    clip_vision: ClipVision,
    vae: Vae,
    #[widget(default = "checkpoints/ComfyUI")] filename_prefix: &str,
) -> Result<()> {
    let assembly = Assembly::new(model.spec(), &model.weights()?);
    let assembly = assembly.vision(clip_vision.0.weights()).vae(vae_weights(&vae)?);
    save(ctx, filename_prefix, |title| {
        let mut metadata = description(&model, title);
        metadata.extend(workflow(ctx)?);
        Ok(assembly.finish(title, metadata))
    })
}

/// Saves a diffusion model alone.
#[node(
    name = "ModelSave",
    title = "ModelSave",
    category = "advanced/model_merging",
    module = "comfy_extras.nodes_model_merging",
    output_node,
    hidden(prompt, extra_pnginfo)
)]
fn model_save(
    ctx: &CallContext<'_>,
    model: Model,
    #[widget(default = "diffusion_models/ComfyUI")] filename_prefix: &str,
) -> Result<()> {
    let assembly = Assembly::new(model.spec(), &model.weights()?);
    save(ctx, filename_prefix, |title| {
        let mut metadata = description(&model, title);
        metadata.extend(workflow(ctx)?);
        Ok(assembly.finish(title, metadata))
    })
}

/// Saves text encoders, each in a file of its own whose name says which it is.
#[node(
    name = "CLIPSave",
    title = "CLIPSave",
    category = "advanced/model_merging",
    module = "comfy_extras.nodes_model_merging",
    output_node,
    hidden(prompt, extra_pnginfo)
)]
fn clip_save(
    ctx: &CallContext<'_>,
    clip: Clip,
    #[widget(default = "clip/ComfyUI")] filename_prefix: &str,
) -> Result<()> {
    for encoder in clip.encoders() {
        ctx.check_interrupt()?;
        let kind = encoder.part.kind;
        let weights = encoder.weights()?;
        save(ctx, &format!("{filename_prefix}_{}", kind.name()), |_| {
            Ok(single_text_encoder(kind, &weights, workflow(ctx)?))
        })?;
    }
    Ok(())
}

/// Saves a VAE.
#[node(
    name = "VAESave",
    title = "VAESave",
    category = "advanced/model_merging",
    module = "comfy_extras.nodes_model_merging",
    output_node,
    hidden(prompt, extra_pnginfo)
)]
fn vae_save(
    ctx: &CallContext<'_>,
    vae: Vae,
    #[widget(default = "vae/ComfyUI_vae")] filename_prefix: &str,
) -> Result<()> {
    let weights = vae_weights(&vae)?;
    save(ctx, filename_prefix, |_| Ok(single_vae(weights, workflow(ctx)?)))
}

/// What LoraSave writes for a matrix.
#[derive(Clone, Copy, Choice)]
enum LoraType {
    #[choice("standard")]
    Standard,
    #[choice("full_diff")]
    FullDiff,
}

/// Saves the difference of two models (made by ModelMergeSubtract or CLIPMergeSubtract) as a LoRA.
#[node(
    name = "LoraSave",
    title = "Extract and Save Lora",
    category = "_for_testing",
    module = "comfy_extras.nodes_lora_extract",
    v3,
    experimental,
    output_node,
    hidden(prompt, extra_pnginfo)
)]
fn lora_save(
    ctx: &CallContext<'_>,
    #[widget(default = "loras/ComfyUI_extracted_lora", multiline = false)] filename_prefix: &str,
    #[widget(default = 8, min = 1, max = 4096, step = 1)] rank: usize,
    #[combo("standard", "full_diff")] lora_type: LoraType,
    #[widget(default = true)] bias_diff: bool,
    /// The ModelMergeSubtract output to be converted to a LoRA.
    #[widget]
    model_diff: Option<Model>,
    /// The CLIPMergeSubtract output to be converted to a LoRA.
    #[widget]
    text_encoder_diff: Option<Clip>,
) -> Result<()> {
    let options = Difference {
        rank: matches!(lora_type, LoraType::Standard).then_some(rank.max(1)),
        vectors: bias_diff,
    };
    let mut lora = StateDict::new(filename_prefix, indexmap::IndexMap::new(), workflow(ctx)?);
    if let Some(model) = model_diff {
        extract::add_modules(&mut lora, "diffusion_model.", &model.weights()?, options);
    }
    for encoder in text_encoder_diff.iter().flat_map(Clip::encoders) {
        ctx.check_interrupt()?;
        let prefix = format!("text_encoders.{}.transformer.", encoder.part.kind.name());
        extract::add_modules(&mut lora, &prefix, &encoder.weights()?, options);
    }
    if lora.is_empty() {
        return Ok(());
    }
    save(ctx, filename_prefix, |_| Ok(lora))
}

/// Writes the state dict that `content` makes of the file's title.
fn save(ctx: &CallContext<'_>, prefix: &str, content: impl FnOnce(&str) -> Result<StateDict>) -> Result<()> {
    let mut names = OutputNames::new(&*ctx.service::<Folders>()?, Root::Output, prefix, (0, 0))?;
    let dict = content(&format!("{prefix} {}", names.next_number()))?;
    let saved = names.write_with(0, "safetensors", |out| {
        safetensors::write_to(prefix, &dict, out).map_err(Error::other)
    })?;
    tracing::info!("saved {}/{}", saved.subfolder, saved.filename);
    Ok(())
}

fn vae_weights(vae: &Vae) -> Result<&StateDict> {
    vae.weights.as_ref().ok_or_else(|| Error::value("the built-in VAE pixel_space has no weights to save"))
}

/// The prompt and what the client sent along, if the host lets files carry them.
fn workflow(ctx: &CallContext<'_>) -> Result<BTreeMap<String, String>> {
    Ok(metadata(ctx)?.into_iter().collect())
}

/// What a checkpoint says about itself in the terms of the Stability AI Model Metadata Standard 1.0.0
/// (<https://github.com/Stability-AI/ModelSpec>), for families that it knows.
fn description(model: &Model, title: &str) -> BTreeMap<String, String> {
    let ModelSpec { family, prediction, in_channels, .. } = model.spec();
    let architecture = match family {
        Family::Sd1 => Some("stable-diffusion-v1"),
        Family::Sd2 if *prediction == Prediction::V => Some("stable-diffusion-v2-768-v"),
        Family::Sd2 => Some("stable-diffusion-v2-512"),
        Family::Sdxl => Some("stable-diffusion-xl-v1-base"),
        Family::SdxlRefiner => Some("stable-diffusion-xl-v1-refiner"),
        Family::Sd3 => Some("stable-diffusion-v3"),
        _ => None,
    };
    let Some(architecture) = architecture else { return BTreeMap::new() };
    let variant = if *in_channels == 9 { "-inpainting" } else { "" };
    let mut fields = vec![
        ("modelspec.sai_model_spec", "1.0.0".to_owned()),
        ("modelspec.architecture", format!("{architecture}{variant}")),
        ("modelspec.implementation", "sgm".to_owned()),
        ("modelspec.title", title.to_owned()),
    ];
    match prediction {
        Prediction::Eps => fields.push(("modelspec.predict_key", "epsilon".to_owned())),
        Prediction::V => fields.push(("modelspec.predict_key", "v".to_owned())),
        _ => {}
    }
    fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}
