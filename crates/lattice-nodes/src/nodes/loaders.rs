//! Models from files.

use std::sync::Arc;

use lattice_graph::{CallContext, Extensions, Node};
use lattice_models::Checkpoint;
use lattice_models::detect::{DiffusionPart, TextEncoderKind, TextPart, VaePart};
use lattice_weights::StoredDType;

use crate::node::node;
use crate::services::{Embeddings, Folders, ModelCache, TinyVae, open};
use crate::types::{Clip, ClipFamily, Model, Vae};
use crate::{Error, Result};

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![
        checkpoint_loader_simple,
        vae_loader,
        unet_loader,
        clip_loader,
        dual_clip_loader,
        triple_clip_loader,
        quadruple_clip_loader
    ]
}

/// Loads a checkpoint: the diffusion model, its text encoders and its VAE. The family is recognised from the tensors.
#[node(name = "CheckpointLoaderSimple", title = "Load Checkpoint", category = "loaders", module = "nodes")]
fn checkpoint_loader_simple(
    ctx: &CallContext<'_>,
    /// A file of the folder checkpoints.
    #[choice(files = "checkpoints")]
    ckpt_name: &str,
) -> Result<(Model, Option<Clip>, Option<Vae>)> {
    let checkpoint = checkpoint_named(ctx, ckpt_name)?;
    Ok((model_of(&checkpoint)?, clip_of(ctx, &checkpoint)?, checkpoint.vae.as_ref().map(Vae::from)))
}

/// A checkpoint of the model folders, from the cache if it is still there.
pub(super) fn checkpoint_named(ctx: &CallContext<'_>, name: &str) -> Result<Arc<Checkpoint>> {
    ctx.service::<ModelCache>()?.checkpoint(&*ctx.service::<Folders>()?, name)
}

/// The diffusion model of a checkpoint.
pub(super) fn model_of(checkpoint: &Checkpoint) -> Result<Model> {
    Model::new(Arc::new(checkpoint.diffusion.clone()))
}

/// The text encoders of a checkpoint, if it has any.
pub(super) fn clip_of(ctx: &CallContext<'_>, checkpoint: &Checkpoint) -> Result<Option<Clip>> {
    match checkpoint.text_encoders.as_slice() {
        [] => Ok(None),
        encoders => {
            let family = ClipFamily::of_model(checkpoint.diffusion.spec.family)?;
            Clip::new(family, encoders.to_vec(), ctx.extensions.get::<Embeddings>()).map(Some)
        }
    }
}

/// The built-in VAE that takes pictures for latents.
const PIXEL_SPACE: &str = "pixel_space";

/// Files of the folder vae, the tiny ones whose halves are there, then the built-in one.
fn vae_names(extensions: &Extensions) -> Vec<String> {
    let Some(folders) = extensions.get::<Folders>() else { return vec![PIXEL_SPACE.to_owned()] };
    let tiny = TinyVae::available(&folders).into_iter().map(|kind| kind.name);
    folders.list("vae").into_iter().chain(tiny.chain([PIXEL_SPACE]).map(str::to_owned)).collect()
}

/// Loads a VAE.
#[node(name = "VAELoader", title = "Load VAE", category = "loaders", module = "nodes")]
fn vae_loader(ctx: &CallContext<'_>, #[choice(from = vae_names)] vae_name: &str) -> Result<Vae> {
    if vae_name == PIXEL_SPACE {
        return Ok(Vae::pixel_space());
    }
    let folders = ctx.service::<Folders>()?;
    if let Some(kind) = TinyVae::named(vae_name) {
        return Ok(Vae::without_weights(kind.load(&folders)?));
    }
    let file = folders.find("vae", vae_name)?;
    let part = VaePart::load(&open(&file)?).map_err(Error::other)?;
    Ok(Vae::from(&part))
}

/// Loads a diffusion model that is alone in its file.
#[node(name = "UNETLoader", title = "Load Diffusion Model", category = "advanced/loaders", module = "nodes")]
fn unet_loader(
    ctx: &CallContext<'_>,
    #[choice(files = "diffusion_models")] unet_name: &str,
    #[choice("default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2")] weight_dtype: &str,
) -> Result<Model> {
    let file = ctx.service::<Folders>()?.find("diffusion_models", unet_name)?;
    let part = DiffusionPart::load(&open(&file)?).map_err(Error::other)?;
    let dtype = match weight_dtype {
        // Products in 8 bits are for graphics cards; here `fast` is plain e4m3.
        "fp8_e4m3fn" | "fp8_e4m3fn_fast" => Some(StoredDType::F8E4M3),
        "fp8_e5m2" => Some(StoredDType::F8E5M2),
        _ => None,
    };
    let part = match dtype {
        None => part,
        Some(dtype) => {
            let weights = part.weights.stored_as(dtype).map_err(Error::other)?;
            part.with_weights(weights).map_err(Error::other)?
        }
    };
    Model::new(Arc::new(part))
}

/// Loads a text encoder.
#[node(name = "CLIPLoader", title = "Load CLIP", category = "advanced/loaders", module = "nodes")]
fn clip_loader(
    ctx: &CallContext<'_>,
    #[choice(files = "text_encoders")] clip_name: &str,
    #[choice(
        "stable_diffusion",
        "stable_cascade",
        "sd3",
        "stable_audio",
        "mochi",
        "ltxv",
        "pixart",
        "cosmos",
        "lumina2",
        "wan",
        "hidream",
        "chroma",
        "ace",
        "omnigen2",
        "qwen_image",
        "hunyuan_image"
    )]
    #[name("type")]
    kind: &str,
    #[choice("default", "cpu")]
    #[widget(advanced = true)]
    #[name("device")]
    _device: Option<String>,
) -> Result<Clip> {
    text_encoders(ctx, &[clip_name], kind)
}

/// Loads two text encoders, in any order.
#[node(name = "DualCLIPLoader", title = "DualCLIPLoader", category = "advanced/loaders", module = "nodes")]
fn dual_clip_loader(
    ctx: &CallContext<'_>,
    #[choice(files = "text_encoders")] clip_name1: &str,
    #[choice(files = "text_encoders")] clip_name2: &str,
    #[choice("sdxl", "sd3", "flux", "hunyuan_video", "hidream", "hunyuan_image")]
    #[name("type")]
    kind: &str,
    #[choice("default", "cpu")]
    #[widget(advanced = true)]
    #[name("device")]
    _device: Option<String>,
) -> Result<Clip> {
    text_encoders(ctx, &[clip_name1, clip_name2], kind)
}

/// Loads three text encoders of SD3, in any order.
#[node(name = "TripleCLIPLoader", category = "advanced/loaders", module = "comfy_extras.nodes_sd3", v3)]
fn triple_clip_loader(
    ctx: &CallContext<'_>,
    #[combo(files = "text_encoders")] clip_name1: &str,
    #[combo(files = "text_encoders")] clip_name2: &str,
    #[combo(files = "text_encoders")] clip_name3: &str,
) -> Result<Clip> {
    text_encoders(ctx, &[clip_name1, clip_name2, clip_name3], "sd3")
}

/// Loads the four text encoders of HiDream, in any order: CLIP-L, CLIP-G, T5-XXL and Llama 3.1. The files are opened and recognised; that
/// the family itself cannot be run yet is an error that says so.
#[node(
    name = "QuadrupleCLIPLoader",
    category = "advanced/loaders",
    module = "comfy_extras.nodes_hidream",
    v3
)]
fn quadruple_clip_loader(
    ctx: &CallContext<'_>,
    #[combo(files = "text_encoders")] clip_name1: &str,
    #[combo(files = "text_encoders")] clip_name2: &str,
    #[combo(files = "text_encoders")] clip_name3: &str,
    #[combo(files = "text_encoders")] clip_name4: &str,
) -> Result<Clip> {
    text_encoders(ctx, &[clip_name1, clip_name2, clip_name3, clip_name4], "hidream")
}

fn text_encoders(ctx: &CallContext<'_>, names: &[&str], kind: &str) -> Result<Clip> {
    let folders = ctx.service::<Folders>()?;
    let load =
        |name: &&str| TextPart::load(&open(&folders.find("text_encoders", name)?)?).map_err(Error::other);
    let mut parts = names.iter().map(load).collect::<Result<Vec<_>>>()?;
    parts.sort_by_key(|part| part.kind == TextEncoderKind::ClipG);
    let kinds: Vec<_> = parts.iter().map(|part| part.kind).collect();
    Clip::new(ClipFamily::of_loader(kind, &kinds)?, parts, ctx.extensions.get::<Embeddings>())
}
