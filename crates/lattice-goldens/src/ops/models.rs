//! Topic `models`: networks on synthetic checkpoints.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use anyhow::{Context, Result, bail};
use candle_core::{DType, Tensor};
use lattice_models::detect::{Checkpoint, DiffusionPart, TextPart, VaePart};
use lattice_models::network::{Control, Reference, ReferencePlacement};
use lattice_models::sd_unet::{BoxedText, Gligen, Grounding};
use lattice_models::{
    ClipVision, ControlNetwork, ForwardOptions, NetworkInput, StyleModel, T2iAdapter, TextInput, TextOptions,
    Upscaler, vision,
};
use lattice_nodes::types::{Image, pixels_for_vision};
use lattice_weights::{StateDict, StoredDType};
use serde_json::Value as Json;

use super::Operation;
use crate::synthetic::Manifest;
use crate::{Case, Check, Outcome};

/// The operations on networks.
pub(super) const OPERATIONS: &[Operation] = &[
    ("models", "unet_forward", diffusion_forward),
    ("models", "dit_forward", diffusion_forward),
    ("models", "vae_encode_mean", vae_encode_mean),
    ("models", "vae_decode", vae_decode),
    ("models", "text_encode", text_encode),
    ("models", "clip_vision_encode", clip_vision_encode),
    ("models", "clip_vision_preprocess", clip_vision_preprocess),
    ("models", "style_model", style_model),
    ("models", "upscale_model", upscale_model),
    ("models", "controlnet_forward", controlnet_forward),
    ("models", "t2i_features", t2i_features),
    ("models", "gligen_unet", gligen_unet),
];

/// The case's checkpoint, made once for all cases of a run that name it.
pub(super) fn checkpoint(case: &Case<'_>) -> Result<StateDict> {
    let json = case.field("checkpoint")?;
    let manifest = json["manifest"].as_str().context("the checkpoint names no manifest")?;
    let seed = json["seed"].as_u64().context("the checkpoint has no seed")?;
    synthetic(manifest, seed, json["dtype"].as_str().unwrap_or("F32"))
}

/// A synthetic checkpoint, made once for all cases of a run.
pub(super) fn synthetic(manifest: &str, seed: u64, dtype: &str) -> Result<StateDict> {
    static MADE: LazyLock<Mutex<HashMap<(String, u64, String), StateDict>>> = LazyLock::new(Mutex::default);
    let stored = match dtype {
        "F32" => StoredDType::F32,
        "F16" => StoredDType::F16,
        "BF16" => StoredDType::BF16,
        "F8_E4M3" => StoredDType::F8E4M3,
        other => bail!("unknown dtype {other}"),
    };
    let key = (manifest.to_owned(), seed, dtype.to_owned());
    let mut made = MADE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(dict) = made.get(&key) {
        return Ok(dict.clone());
    }
    let dict = Manifest::find(&Manifest::project_root(), manifest)?.state_dict(seed, stored)?;
    made.insert(key, dict.clone());
    Ok(dict)
}

/// Compares an output with the strict tolerance where the case has one.
pub(super) fn compare(case: &Case<'_>, name: &str, got: &Tensor) -> Result<Check> {
    let levels = if case.json["strict"].is_object() { &case.json["strict"] } else { case.field("tol")? };
    let level = |key: &str| levels[key].as_f64().with_context(|| format!("the tolerance has no {key}"));
    Check::relative(name, got, &case.tensor(name)?, level("max_rel")?, level("mean_rel")?)
}

/// An input as f32, if the case has it.
fn input(case: &Case<'_>, name: &str) -> Result<Option<Tensor>> {
    case.has_tensor(name).then(|| Ok(case.tensor(name)?.to_dtype(DType::F32)?)).transpose()
}

fn required(case: &Case<'_>, name: &str) -> Result<Tensor> {
    input(case, name)?.with_context(|| format!("the case has no input {name}"))
}

/// Inputs `STEM_0`, `STEM_1`, ... in order.
fn numbered(case: &Case<'_>, stem: &str) -> Result<Vec<Option<Tensor>>> {
    let names = (0..).map(|i| format!("{stem}_{i}")).take_while(|name| case.has_tensor(name));
    names.map(|name| input(case, &name)).collect()
}

/// The network inputs of a case.
pub(super) fn network_input(case: &Case<'_>) -> Result<NetworkInput> {
    let control = Control {
        input: numbered(case, "control_input")?,
        middle: numbered(case, "control_middle")?,
        output: numbered(case, "control_output")?,
    };
    let any = !(control.input.is_empty() && control.middle.is_empty() && control.output.is_empty());
    let latents: Vec<Tensor> = (0..)
        .map(|i| format!("ref_latent{i}"))
        .take_while(|name| case.has_tensor(name))
        .map(|name| required(case, &name))
        .collect::<Result<_>>()?;
    let placement = match case.json["params"]["ref_latents_method"].as_str() {
        None | Some("offset") => ReferencePlacement::Offset,
        Some("index") => ReferencePlacement::Index,
        Some("uxo") => ReferencePlacement::Diagonal,
        Some(other) => bail!("unknown ref_latents_method {other}"),
    };
    Ok(NetworkInput {
        reference: (!latents.is_empty()).then_some(Reference { latents, placement }),
        context: input(case, "context")?,
        context_mask: input(case, "attention_mask")?,
        y: input(case, "y")?,
        guidance: input(case, "guidance")?,
        control: any.then_some(control),
        ..NetworkInput::new(required(case, "x")?, required(case, "timesteps")?)
    })
}

fn diffusion_forward(case: &Case<'_>) -> Result<Outcome> {
    let part = DiffusionPart::load(&checkpoint(case)?)?;
    let out = part.network.forward(&network_input(case)?, &ForwardOptions::default())?;
    Ok(Outcome::Ran(vec![compare(case, "out", &out)?]))
}

/// The VAE of a case: alone in its file, or part of a checkpoint.
fn vae(case: &Case<'_>) -> Result<VaePart> {
    let dict = checkpoint(case)?;
    if dict.iter().any(|(name, _)| name.starts_with("first_stage_model.")) {
        Checkpoint::load(&dict)?.vae.context("the checkpoint has no VAE")
    } else {
        Ok(VaePart::load(&dict)?)
    }
}

fn vae_encode_mean(case: &Case<'_>) -> Result<Outcome> {
    let name = if case.has_tensor("image") { "image" } else { "video" };
    let out = vae(case)?.vae.encode_mean(&required(case, name)?)?;
    Ok(Outcome::Ran(vec![compare(case, "out", &out)?]))
}

fn vae_decode(case: &Case<'_>) -> Result<Outcome> {
    let out = vae(case)?.vae.decode(&required(case, "latent")?)?;
    Ok(Outcome::Ran(vec![compare(case, "out", &out)?]))
}

fn clip_vision_encode(case: &Case<'_>) -> Result<Outcome> {
    let out = ClipVision::load(&checkpoint(case)?)?.encode(&required(case, "pixel_values")?)?;
    let layers = Tensor::stack(&out.layers, 1)?;
    let mut checks = vec![compare(case, "last_hidden_state", &out.last)?];
    checks.push(compare(case, "all_hidden_states", &layers)?);
    checks.push(compare(case, "image_embeds", &out.embeds)?);
    Ok(Outcome::Ran(checks))
}

fn clip_vision_preprocess(case: &Case<'_>) -> Result<Outcome> {
    let params = case.field("params")?;
    let size = params["size"].as_u64().context("no size")? as usize;
    let crop = params["crop"].as_bool().context("no crop")?;
    let colors = match params["norm"].as_str() {
        Some("siglip") => &vision::SIGLIP_COLORS,
        _ => &vision::CLIP_COLORS,
    };
    let out = pixels_for_vision(&Image(required(case, "image_nhwc")?), size, crop, colors)?;
    Ok(Outcome::Ran(vec![compare(case, "out", &out)?]))
}

fn style_model(case: &Case<'_>) -> Result<Outcome> {
    let out = StyleModel::load(&checkpoint(case)?)?.forward(&required(case, "image_features")?)?;
    Ok(Outcome::Ran(vec![compare(case, "out", &out)?]))
}

fn upscale_model(case: &Case<'_>) -> Result<Outcome> {
    let upscaler = Upscaler::load(&checkpoint(case)?)?;
    let out = upscaler.forward(&required(case, "image")?)?;
    let scale = case.json["params"]["scale"].as_u64().context("no scale")? as usize;
    Ok(Outcome::Ran(vec![Check::equal("scale", &upscaler.scale(), &scale), compare(case, "out", &out)?]))
}

fn controlnet_forward(case: &Case<'_>) -> Result<Outcome> {
    let params = &case.json["params"];
    let dict = checkpoint(case)?;
    let network = match params["base_manifest"].as_str() {
        Some(base) => {
            let base = synthetic(base, params["base_seed"].as_u64().unwrap_or(0), "F32")?;
            ControlNetwork::load_with_base(&dict, &DiffusionPart::load(&base)?.weights)?
        }
        None => ControlNetwork::load(&dict)?,
    };
    let kinds: Vec<usize> = match &params["control_type"] {
        Json::Null => vec![],
        kinds => serde_json::from_value(kinds.clone())?,
    };
    let hint = network.read_hint(&required(case, "hint")?, &kinds)?;
    let control = network.residuals(&network_input(case)?, &hint, &kinds)?;
    if !case.field("outputs")?.as_object().is_some_and(|outputs| outputs.keys().any(|k| k.contains('.'))) {
        return compare_repeated(case, &control);
    }
    compare_control(case, control)
}

/// Compares the residuals of transformers, of which the case lists each once: `input_block_I`, `output_block_I`, `block_I` or `first`.
fn compare_repeated(case: &Case<'_>, control: &Control) -> Result<Outcome> {
    let distinct = |list: &[Option<Tensor>]| -> Vec<Tensor> {
        let mut found: Vec<Tensor> = Vec::new();
        for residual in list.iter().flatten() {
            if found.last().is_none_or(|last| last.id() != residual.id()) {
                found.push(residual.clone());
            }
        }
        found
    };
    let mut checks = vec![];
    for (list, names) in
        [(&control.input, ["input_block_", ""]), (&control.output, ["output_block_", "block_"])]
    {
        for (i, residual) in distinct(list).iter().enumerate() {
            let named = names.iter().map(|stem| format!("{stem}{i}")).find(|name| case.has_tensor(name));
            checks.push(compare(case, named.as_deref().unwrap_or("first"), residual)?);
        }
    }
    let params = &case.json["params"];
    let count = |name: &str| params[name].as_u64().map(|n| n as usize);
    if let Some(double) = count("main_double") {
        let list = if control.input.is_empty() { &control.output } else { &control.input };
        checks.push(Check::equal("residuals of double blocks", &list.len(), &double));
    }
    if let Some(single) = count("main_single") {
        checks.push(Check::equal("residuals of single blocks", &control.output.len(), &single));
    }
    if let Some(last) = count("last_block_repeats") {
        checks.push(Check::equal("residuals", &control.output.len(), &last));
    }
    let wanted = case.field("outputs")?.as_object().map_or(0, serde_json::Map::len);
    let compared = distinct(&control.input).len() + distinct(&control.output).len();
    checks.push(Check::equal("number of residuals", &compared, &wanted));
    Ok(Outcome::Ran(checks))
}

fn t2i_features(case: &Case<'_>) -> Result<Outcome> {
    compare_control(case, T2iAdapter::load(&checkpoint(case)?)?.forward(&required(case, "hint")?)?)
}

/// Texts in boxes of a latent, given in its cells.
fn gligen_unet(case: &Case<'_>) -> Result<Outcome> {
    let layers = Arc::new(Gligen::load(&checkpoint(case)?)?);
    let params = case.field("params")?;
    let manifest = params["unet_manifest"].as_str().context("no U-Net")?;
    let unet = synthetic(manifest, params["unet_seed"].as_u64().unwrap_or(0), "F32")?;
    let mut input = network_input(case)?;
    let (_, _, height, width) = input.x.dims4()?;
    let texts = required(case, "box_embeddings")?;
    let boxes: Vec<[f64; 4]> = serde_json::from_value(params["boxes_h_w_y_x"].clone())?;
    let boxes = boxes.iter().enumerate().map(|(i, [h, w, y, x])| {
        let (rows, columns) = (height as f64, width as f64);
        let edges = [x / columns, y / rows, (x + w) / columns, (y + h) / rows];
        Ok(BoxedText { text: texts.get(i)?.flatten_all()?.unsqueeze(0)?, edges })
    });
    let objects = layers.objects(&boxes.collect::<Result<Vec<_>>>()?, input.x.device())?;
    let mut checks = vec![compare(case, "objs", &objects)?];
    input.grounding = Some(Grounding { layers, objects });
    let out = DiffusionPart::load(&unet)?.network.forward(&input, &ForwardOptions::default())?;
    checks.push(compare(case, "unet", &out)?);
    Ok(Outcome::Ran(checks))
}

/// Compares residuals by their places in the lists; places without an output must be empty.
fn compare_control(case: &Case<'_>, control: Control) -> Result<Outcome> {
    let lists = [("input", control.input), ("middle", control.middle), ("output", control.output)];
    let mut checks = vec![];
    for (list, residuals) in lists {
        for (i, residual) in residuals.into_iter().enumerate() {
            if let Some(residual) = residual {
                checks.push(compare(case, &format!("{list}.{i}"), &residual)?);
            }
        }
    }
    let wanted = case.field("outputs")?.as_object().map_or(0, serde_json::Map::len);
    checks.push(Check::equal("number of residuals", &checks.len(), &wanted));
    Ok(Outcome::Ran(checks))
}

/// The text encoder of a case: alone in its file, or the named component of a checkpoint.
fn text_part(case: &Case<'_>) -> Result<TextPart> {
    let dict = checkpoint(case)?;
    match case.json["component"].as_str() {
        None => Ok(TextPart::load(&dict)?),
        Some(component) => {
            let parts = Checkpoint::load(&dict)?.text_encoders;
            let found = parts.into_iter().find(|part| part.kind.name() == component);
            found.with_context(|| format!("the checkpoint has no text encoder {component}"))
        }
    }
}

/// Rows of a matrix of integers.
pub(super) fn integer_rows(t: &Tensor) -> Result<Vec<Vec<u32>>> {
    let rows = t.to_dtype(DType::I64)?.to_vec2::<i64>()?;
    Ok(rows.into_iter().map(|row| row.into_iter().map(|v| v as u32).collect()).collect())
}

fn text_encode(case: &Case<'_>) -> Result<Outcome> {
    let encoder = text_part(case)?.encoder;
    let mut text = TextInput::from_ids(&integer_rows(&case.tensor("input_ids")?)?);
    if case.has_tensor("attention_mask") {
        let mask = integer_rows(&case.tensor("attention_mask")?)?;
        text.mask = Some(mask.into_iter().map(|row| row.into_iter().map(|v| v != 0).collect()).collect());
    }
    let mut checks = vec![];
    let outputs = case.field("outputs")?.as_object().context("outputs is no object")?;
    for name in outputs.keys() {
        let options = match name.as_str() {
            "penultimate" => TextOptions { layer: 2, final_norm: false },
            "penultimate_ln" => TextOptions { layer: 2, final_norm: true },
            "hidden_minus3" => TextOptions { layer: 3, final_norm: false },
            _ => TextOptions::default(),
        };
        let out = encoder.encode(&text, options)?;
        let got = match name.as_str() {
            "pooled" => out.pooled.context("no pooled state")?,
            // What is padded counts as zero.
            "masked_output" => {
                let mask = required(case, "attention_mask")?.unsqueeze(2)?;
                out.states.broadcast_mul(&mask)?
            }
            "pooled_projected" => out.projected.context("no projected state")?,
            _ => out.states,
        };
        checks.push(compare(case, name, &got)?);
    }
    Ok(Outcome::Ran(checks))
}
