//! Loaders of diffusers folders and of checkpoints that read pictures.

use std::path::Path;
use std::sync::Arc;

use lattice_graph::{CallContext, Node};
use lattice_models::Checkpoint;
use lattice_models::detect::{Prediction, Schedule};
use lattice_weights::open_any;
use serde_json::Value as Json;

use super::loaders::{checkpoint_named, clip_of, model_of};
use crate::node::node;
use crate::services::{Folders, ModelFile};
use crate::types::{Clip, ClipVision, Model, Vae};
use crate::{Error, Result};

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![diffusers_loader, unclip_checkpoint_loader, image_only_checkpoint_loader]
}

/// Loads a folder in the diffusers layout: model_index.json and a sub-folder for each part.
#[node(
    name = "DiffusersLoader",
    title = "DiffusersLoader",
    category = "advanced/loaders/deprecated",
    module = "nodes"
)]
fn diffusers_loader(
    ctx: &CallContext<'_>,
    #[choice(files = "diffusers")] model_path: &str,
) -> Result<(Model, Option<Clip>, Option<Vae>)> {
    let ModelFile::Path(folder) = ctx.service::<Folders>()?.find("diffusers", model_path)? else {
        return Err(Error::value(format!("{model_path} is no folder")));
    };
    let checkpoint = open_diffusers(&folder)?;
    Ok((model_of(&checkpoint)?, clip_of(ctx, &checkpoint)?, checkpoint.vae.as_ref().map(Vae::from)))
}

/// Loads a checkpoint whose model reads pictures beside prompts, with its vision tower.
#[node(
    name = "unCLIPCheckpointLoader",
    title = "unCLIPCheckpointLoader",
    category = "loaders",
    module = "nodes"
)]
fn unclip_checkpoint_loader(
    ctx: &CallContext<'_>,
    #[choice(files = "checkpoints")] ckpt_name: &str,
) -> Result<(Model, Option<Clip>, Option<Vae>, Option<ClipVision>)> {
    let checkpoint = checkpoint_named(ctx, ckpt_name)?;
    let vision = checkpoint.vision.clone().map(ClipVision);
    Ok((model_of(&checkpoint)?, clip_of(ctx, &checkpoint)?, checkpoint.vae.as_ref().map(Vae::from), vision))
}

/// Loads a checkpoint that starts from a picture and has no text encoder.
#[node(
    name = "ImageOnlyCheckpointLoader",
    title = "Image Only Checkpoint Loader (img2vid model)",
    category = "loaders/video_models",
    module = "comfy_extras.nodes_video_model"
)]
fn image_only_checkpoint_loader(
    ctx: &CallContext<'_>,
    #[choice(files = "checkpoints")] ckpt_name: &str,
) -> Result<(Model, Option<ClipVision>, Option<Vae>)> {
    let checkpoint = checkpoint_named(ctx, ckpt_name)?;
    let vision = checkpoint.vision.clone().map(ClipVision);
    Ok((model_of(&checkpoint)?, vision, checkpoint.vae.as_ref().map(Vae::from)))
}

/// Opens the parts of a folder, each from its sub-folder, where its own metadata are.
fn open_diffusers(folder: &Path) -> Result<Checkpoint> {
    let open = |name: &str| {
        let part = folder.join(name);
        part.is_dir().then(|| open_any(&part).map_err(Error::other)).transpose()
    };
    let diffusion = match open("unet")? {
        Some(unet) => Some(unet),
        None => open("transformer")?,
    };
    let diffusion = diffusion.ok_or_else(|| {
        Error::value(format!("{}: has neither a folder unet nor transformer", folder.display()))
    })?;
    let mut texts = Vec::new();
    for name in ["text_encoder", "text_encoder_2", "text_encoder_3"] {
        texts.extend(open(name)?);
    }
    let mut checkpoint =
        Checkpoint::from_components(&diffusion, &texts, open("vae")?.as_ref()).map_err(Error::other)?;
    apply_scheduler(&mut checkpoint, &folder.join("scheduler/scheduler_config.json"));
    Ok(checkpoint)
}

/// What the prediction means stands in the scheduler's settings; without them the tensors decide.
fn apply_scheduler(checkpoint: &mut Checkpoint, file: &Path) {
    let Some(settings) = std::fs::read(file).ok().and_then(|text| serde_json::from_slice::<Json>(&text).ok())
    else {
        return;
    };
    let spec = &mut checkpoint.diffusion.spec;
    if let Schedule::ScaledLinear { zero_terminal_snr, .. } = &mut spec.schedule {
        match settings["prediction_type"].as_str() {
            Some("v_prediction") => spec.prediction = Prediction::V,
            Some("epsilon") => spec.prediction = Prediction::Eps,
            _ => {}
        }
        *zero_terminal_snr |= settings["rescale_betas_zero_snr"] == true;
    }
}
