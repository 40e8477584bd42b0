//! Loaders of diffusers folders, of checkpoints with a configuration or a vision tower, and of hypernetworks.

use std::path::Path;
use std::sync::Arc;

use lattice_diffusion::SamplingSettings;
use lattice_diffusion::guidance::HypernetworkPatch;
use lattice_graph::{CallContext, Node};
use lattice_models::detect::{Prediction, Schedule};
use lattice_models::{Checkpoint, Hypernetwork};
use lattice_weights::open_any;
use serde_json::Value as Json;
use serde_yaml_ng::Value as Yaml;

use super::loaders::{checkpoint_named, clip_of, model_of};
use crate::node::node;
use crate::services::{Folders, ModelFile, open};
use crate::types::{Clip, ClipVision, Model, Vae};
use crate::{Error, Result};

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![
        diffusers_loader,
        checkpoint_loader,
        unclip_checkpoint_loader,
        image_only_checkpoint_loader,
        hypernetwork_loader
    ]
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

/// Loads a checkpoint with a training configuration, of which two things count: what the network predicts, and which layer of the
/// text encoder is read. The rest is told by the tensors.
#[node(
    name = "CheckpointLoader",
    title = "Load Checkpoint With Config (DEPRECATED)",
    category = "advanced/loaders",
    module = "nodes",
    deprecated
)]
fn checkpoint_loader(
    ctx: &CallContext<'_>,
    #[choice(files = "configs")] config_name: &str,
    #[choice(files = "checkpoints")] ckpt_name: &str,
) -> Result<(Model, Option<Clip>, Option<Vae>)> {
    let config = match ctx.service::<Folders>()?.find("configs", config_name)? {
        ModelFile::Path(path) => TrainingConfig::read(&path)?,
        ModelFile::Builtin { name, .. } => return Err(Error::value(format!("{name} is no configuration"))),
    };
    let checkpoint = checkpoint_named(ctx, ckpt_name)?;
    let mut model = model_of(&checkpoint)?;
    if config.predicts_velocity {
        let settings = SamplingSettings { prediction: lattice_diffusion::Prediction::V, ..model.settings };
        model = model.with_settings(settings)?;
    }
    let clip = clip_of(ctx, &checkpoint)?;
    let clip = match config.text_layer {
        Some(layer) => clip.map(|clip| clip.with_layer(layer)),
        None => clip,
    };
    Ok((model, clip, checkpoint.vae.as_ref().map(Vae::from)))
}

/// What counts of a training configuration (`v1-inference.yaml` and its kin).
#[derive(Debug, Default, PartialEq)]
struct TrainingConfig {
    predicts_velocity: bool,
    /// Counted from the end; 1 is the last.
    text_layer: Option<usize>,
}

impl TrainingConfig {
    /// Published ones have some 70 lines.
    const MOST_BYTES: u64 = 1 << 20;

    fn read(path: &Path) -> Result<Self> {
        let about = |error: String| Error::value(format!("{}: {error}", path.display()));
        let size = std::fs::metadata(path).map_err(|e| about(e.to_string()))?.len();
        if size > Self::MOST_BYTES {
            return Err(about(format!("{size} bytes are no configuration")));
        }
        let text = std::fs::read_to_string(path).map_err(|e| about(e.to_string()))?;
        Self::parse(&text).map_err(about)
    }

    fn parse(text: &str) -> std::result::Result<Self, String> {
        let yaml: Yaml = serde_yaml_ng::from_str(text).map_err(|e| e.to_string())?;
        let params = &yaml["model"]["params"];
        if !params.is_mapping() {
            return Err("there is no `model.params`".into());
        }
        let layer = params["cond_stage_config"]["params"]["layer_idx"].as_i64();
        Ok(Self {
            predicts_velocity: params["parameterization"].as_str() == Some("v"),
            text_layer: layer.and_then(|layer| usize::try_from(layer.checked_neg()?).ok()).filter(|&n| n > 0),
        })
    }
}

/// Puts a hypernetwork on a model: small networks that change the keys and values of its attentions.
#[node(
    name = "HypernetworkLoader",
    title = "HypernetworkLoader",
    category = "loaders",
    module = "comfy_extras.nodes_hypernetwork"
)]
fn hypernetwork_loader(
    ctx: &CallContext<'_>,
    model: Model,
    #[choice(files = "hypernetworks")] hypernetwork_name: &str,
    #[widget(default = 1.0, min = -10.0, max = 10.0, step = 0.01)] strength: f64,
) -> Result<Model> {
    let dict = open(&ctx.service::<Folders>()?.find("hypernetworks", hypernetwork_name)?)?;
    let network = Arc::new(Hypernetwork::load(&dict).map_err(Error::other)?);
    let patch = Arc::new(HypernetworkPatch { network, strength });
    Ok(model.with_patches(|patches| patches.network.push(patch)))
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
    let part = |name: &str| {
        let part = folder.join(name);
        part.is_dir().then(|| open_any(&part).map_err(Error::other)).transpose()
    };
    let diffusion = match part("unet")? {
        Some(unet) => Some(unet),
        None => part("transformer")?,
    };
    let diffusion = diffusion.ok_or_else(|| {
        Error::value(format!("{}: has neither a folder unet nor transformer", folder.display()))
    })?;
    let mut texts = Vec::new();
    for name in ["text_encoder", "text_encoder_2", "text_encoder_3"] {
        texts.extend(part(name)?);
    }
    let mut checkpoint =
        Checkpoint::from_components(&diffusion, &texts, part("vae")?.as_ref()).map_err(Error::other)?;
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

#[cfg(test)]
mod tests {
    use super::TrainingConfig;

    #[test]
    fn training_configurations() {
        let text = "model:\n  target: x\n  params:\n    parameterization: \"v\"\n    cond_stage_config:\n      params:\n        layer: hidden\n        layer_idx: -2\n";
        let parsed = TrainingConfig::parse(text).unwrap();
        assert_eq!(parsed, TrainingConfig { predicts_velocity: true, text_layer: Some(2) });
        let plain = "model:\n  params:\n    linear_start: 0.00085\n    cond_stage_config:\n      target: y\n";
        assert_eq!(TrainingConfig::parse(plain).unwrap(), TrainingConfig::default());
        for broken in ["", "model: 3", "[1, 2", "model:\n  params: text"] {
            assert!(TrainingConfig::parse(broken).is_err(), "{broken}");
        }
    }
}
