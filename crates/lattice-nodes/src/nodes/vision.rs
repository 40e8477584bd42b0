//! Pictures as prompts: vision towers and style models.

use std::sync::Arc;

use candle_core::Tensor;
use lattice_diffusion::conditioning::PicturePrompt;
use lattice_graph::{CallContext, Node};

use super::conditioning::changed;
use crate::node::node;
use crate::services::{Folders, open};
use crate::types::{ClipVision, ClipVisionOutput, Conditioning, Image, StyleModel};
use crate::{Error, Result};

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![
        clip_vision_loader,
        clip_vision_encode,
        style_model_loader,
        style_model_apply,
        unclip_conditioning
    ]
}

/// Loads a vision tower: CLIP or SigLIP.
#[node(name = "CLIPVisionLoader", title = "Load CLIP Vision", category = "loaders", module = "nodes")]
fn clip_vision_loader(
    ctx: &CallContext<'_>,
    #[choice(files = "clip_vision")] clip_name: &str,
) -> Result<ClipVision> {
    let dict = open(&ctx.service::<Folders>()?.find("clip_vision", clip_name)?)?;
    let tower = lattice_models::ClipVision::load(&dict).map_err(Error::other)?;
    Ok(ClipVision(Arc::new(tower)))
}

/// Encodes pictures for models that read them. The longer side is cut around the middle, or the picture is squeezed into a
/// square.
#[node(name = "CLIPVisionEncode", title = "CLIP Vision Encode", category = "conditioning", module = "nodes")]
fn clip_vision_encode(
    clip_vision: ClipVision,
    image: Image,
    #[choice("center", "none")] crop: &str,
) -> Result<ClipVisionOutput> {
    Ok(clip_vision.encode(&image, crop == "center")?)
}

/// Loads a style model: Redux of Flux, or a style adapter of Stable Diffusion 1.x.
#[node(name = "StyleModelLoader", title = "Load Style Model", category = "loaders", module = "nodes")]
fn style_model_loader(
    ctx: &CallContext<'_>,
    #[choice(files = "style_models")] style_model_name: &str,
) -> Result<StyleModel> {
    let dict = open(&ctx.service::<Folders>()?.find("style_models", style_model_name)?)?;
    let model = lattice_models::StyleModel::load(&dict).map_err(Error::other)?;
    Ok(StyleModel(Arc::new(model)))
}

/// Appends what a style model makes of pictures to a prompt. The strength scales the tokens.
#[node(
    name = "StyleModelApply",
    title = "Apply Style Model",
    category = "conditioning/style_model",
    module = "nodes"
)]
fn style_model_apply(
    conditioning: Conditioning,
    style_model: StyleModel,
    clip_vision_output: ClipVisionOutput,
    #[widget(default = 1.0, min = 0.0, max = 10.0, step = 0.001)] strength: f64,
    #[choice("multiply", "attn_bias")] strength_type: &str,
) -> Result<Conditioning> {
    let tokens = style_model.0.forward(&clip_vision_output.last)?;
    let (pictures, count, width) = tokens.dims3()?;
    // All pictures in one row of tokens.
    let mut tokens = tokens.reshape((1, pictures * count, width))?;
    match strength_type {
        "multiply" => tokens = (tokens * strength)?,
        _ if strength == 1.0 => {}
        _ => {
            return Err(Error::value(
                "attention to a style cannot be weighed yet; use the strength type \"multiply\"",
            ));
        }
    }
    let mut entries = conditioning.0;
    for entry in &mut entries {
        let own = entry.tensor.dim(2)?;
        if own != width {
            return Err(Error::value(format!(
                "the prompt's states are {own} wide, the style's {width}; they are for different models"
            )));
        }
        let style = tokens.to_device(entry.tensor.device())?.to_dtype(entry.tensor.dtype())?;
        let style = style.broadcast_as((entry.tensor.dim(0)?, pictures * count, width))?.contiguous()?;
        entry.tensor = Tensor::cat(&[&entry.tensor, &style], 1)?;
    }
    Ok(Conditioning(entries))
}

/// Shows a picture to models that read pictures beside prompts (unCLIP; SDXL in place of its pooled text).
#[node(
    name = "unCLIPConditioning",
    title = "unCLIPConditioning",
    category = "conditioning",
    module = "nodes"
)]
fn unclip_conditioning(
    conditioning: Conditioning,
    clip_vision_output: ClipVisionOutput,
    /// How much the picture says.
    #[widget(default = 1.0, min = -10.0, max = 10.0, step = 0.01)]
    strength: f64,
    /// How much noise hides its details.
    #[widget(default = 0.0, min = 0.0, max = 1.0, step = 0.01)]
    noise_augmentation: f64,
) -> Conditioning {
    if strength == 0.0 {
        return conditioning;
    }
    let picture = PicturePrompt { embeds: clip_vision_output.embeds, strength, noise_augmentation };
    changed(&conditioning, |options| options.pictures.push(picture.clone()))
}
