//! Latents from and to files.

use std::path::PathBuf;
use std::sync::Arc;

use candle_core::{DType, Device};
use lattice_graph::{CallContext, Extensions, Inputs, Node};
use lattice_weights::{StateDict, Weight, safetensors};
use serde_json::Value as Json;

use super::image_files::metadata;
use crate::node::{Ui, node};
use crate::services::{Folders, OutputNames, Root, file_hash};
use crate::types::Latent;
use crate::{Error, Result};

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![save_latent, load_latent]
}

const TENSOR: &str = "latent_tensor";
/// Says that the latent is in the VAE's scale; older files are in the network's.
const VERSION: &str = "latent_format_version_0";
/// Scale of Stable Diffusion 1, which is what older files are of.
const OLD_SCALE: f64 = 0.18215;

/// Saves latents in the output folder, with the prompt and the workflow inside.
#[node(
    name = "SaveLatent",
    title = "SaveLatent",
    category = "_for_testing",
    module = "nodes",
    output_node,
    hidden(prompt, extra_pnginfo)
)]
fn save_latent(
    ctx: &CallContext<'_>,
    samples: Latent,
    #[widget(default = "latents/ComfyUI")] filename_prefix: &str,
) -> Result<Ui> {
    let values = samples.samples.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
    let weight = Weight::from_f32(values.flatten_all()?.to_vec1()?, values.dims())?;
    let tensors = [(TENSOR.to_owned(), weight), (VERSION.to_owned(), Weight::from_f32(Vec::new(), 0)?)];
    let dict = StateDict::new("latent", tensors.into_iter().collect(), metadata(ctx)?.into_iter().collect());
    let mut names = OutputNames::new(&*ctx.service::<Folders>()?, Root::Output, filename_prefix, (0, 0))?;
    let saved = names.write_with(0, "latent", |out| {
        safetensors::write_to(filename_prefix, &dict, out).map_err(Error::other)
    })?;
    Ok(Ui::new("latents", vec![saved.entry()]))
}

/// Latents directly in the input folder.
fn input_latents(extensions: &Extensions) -> Vec<String> {
    let folders = extensions.get::<Folders>();
    folders.map(|folders| folders.files(Root::Input, &["latent"])).unwrap_or_default()
}

/// Loads latents that were saved.
#[node(
    name = "LoadLatent",
    title = "LoadLatent",
    category = "_for_testing",
    module = "nodes",
    fingerprint = latent_hash,
    validate(latent, with = latent_exists)
)]
fn load_latent(ctx: &CallContext<'_>, #[choice(from = input_latents)] latent: &str) -> Result<Latent> {
    let path = ctx.service::<Folders>()?.annotated(latent, Root::Input)?;
    let dict = safetensors::open(&path).map_err(Error::other)?;
    let weight = dict.get(TENSOR);
    let weight = weight.ok_or_else(|| Error::value(format!("{latent} holds no tensor {TENSOR}")))?;
    let samples = weight.to_tensor(&Device::Cpu)?.to_dtype(DType::F32)?;
    if samples.rank() < 3 || samples.elem_count() == 0 {
        return Err(Error::value(format!("{latent}: {:?} is no latent's shape", samples.shape())));
    }
    let scale = if dict.contains(VERSION) { 1.0 } else { 1.0 / OLD_SCALE };
    Ok(Latent::new((samples * scale)?))
}

/// The file that the input `latent` names.
fn latent_path(extensions: &Extensions, inputs: &Inputs) -> Result<PathBuf> {
    let name = inputs.get("latent").and_then(|value| value.as_json()?.as_str());
    let name = name.ok_or_else(|| Error::value("the name of the latent is no text"))?;
    let folders = extensions.get::<Folders>().ok_or_else(|| Error::value("there is no input folder"))?;
    folders.annotated(name, Root::Input)
}

fn latent_hash(extensions: &Extensions, inputs: &Inputs) -> Result<Json> {
    Ok(file_hash(&latent_path(extensions, inputs)?)?.into())
}

/// Any file that exists will do, in the list or not. A linked name is judged when it is there.
fn latent_exists(extensions: &Extensions, inputs: &Inputs) -> Result<(), String> {
    let Some(name) = inputs.get("latent").and_then(|value| value.as_json()?.as_str()) else { return Ok(()) };
    let exists = latent_path(extensions, inputs).is_ok_and(|path| path.is_file());
    if exists { Ok(()) } else { Err(format!("Invalid latent file: {name}")) }
}
