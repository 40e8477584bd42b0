//! Latent, image and mask nodes, called through the registry as the engine calls them, and tiling.

use anyhow::{Context, Result, anyhow, bail};
use candle_core::{DType, Tensor};
use lattice_diffusion::tiled::{Axis, Scaling, Tiles, mean_of_tilings, tiled_scale};
use lattice_graph::{InputKind, Inputs, NodeOutput, Slot, StandaloneCall, Value};
use lattice_media::quantize;
use lattice_nodes::node::GraphType;
use lattice_nodes::types::{Image, Latent, Mask};
use serde_json::Value as Json;

use super::Operation;
use crate::case::values;
use crate::{Case, Check, Outcome};

/// Operations of topic `latent`.
pub(super) const OPERATIONS: &[Operation] = &[
    ("latent", "node", node),
    ("latent", "latent_operation", latent_operation),
    ("latent", "tiled_scale", tiled),
    ("latent", "tiled_scale_multidim", tiled),
    ("latent", "three_pass", three_pass),
];

/// Calls a node class with inputs by name.
fn call(name: &str, inputs: Inputs) -> Result<NodeOutput> {
    let registry = lattice_nodes::registry();
    let node = registry.get(name).with_context(|| format!("no node {name}"))?;
    let surroundings = StandaloneCall::default();
    Ok(node.call(&surroundings.context(), inputs)?)
}

/// The inputs of a case: literals, and tensors as the types that the node declares.
fn inputs(case: &Case<'_>) -> Result<Inputs> {
    let registry = lattice_nodes::registry();
    let literals = case.field("inputs")?.as_object().context("inputs is no object")?;
    // `latent.batch_index` is a field of the latent.
    let plain = literals.iter().filter(|(name, _)| !name.contains('.'));
    let mut inputs: Inputs = plain.map(|(name, v)| (name.clone(), Value::Json(v.clone()))).collect();
    let spec = registry.get(case.str("node")?).context("no such node")?.spec().clone();
    for role in case.field("tensors")?.as_object().context("tensors is no object")?.keys() {
        let Some(name) = role.strip_prefix("in.") else { continue };
        let tensor = case.tensor(role)?;
        let kind = spec.input(name).map(|input| &input.kind);
        let kind = kind.and_then(|kind| match kind {
            InputKind::Type(name) => Some(name.as_str()),
            _ => None,
        });
        let value = match kind {
            Some("LATENT") => latent(case, name, tensor)?.into_value(),
            Some("MASK") => Mask(tensor).into_value(),
            Some("IMAGE") => Image(tensor).into_value(),
            other => bail!("input {name} of type {other:?} is no tensor"),
        };
        inputs.insert(name.to_owned(), value);
    }
    Ok(inputs)
}

fn latent(case: &Case<'_>, name: &str, samples: Tensor) -> Result<Latent> {
    let index = case.json["inputs"][format!("{name}.batch_index")].as_array();
    let index = index.map(|list| list.iter().filter_map(Json::as_u64).map(|i| i as usize).collect());
    // Masks that pass through unchanged are stored with the output alone.
    let through = case.has_tensor("out0_noise_mask") && !case.has_tensor("in.mask");
    let noise_mask = through.then(|| case.tensor("out0_noise_mask")).transpose()?;
    Ok(Latent { batch_index: index, noise_mask, ..Latent::new(samples) })
}

/// The tensor of a result, whatever its type.
fn tensor_of(value: &Value) -> Result<Tensor> {
    let image = value.downcast::<Image>().map(|v| v.0.clone());
    let mask = || value.downcast::<Mask>().map(|v| v.0.clone());
    let latent = || value.downcast::<Latent>().map(|v| v.samples.clone());
    image.or_else(mask).or_else(latent).ok_or_else(|| anyhow!("a result is no tensor"))
}

fn node(case: &Case<'_>) -> Result<Outcome> {
    let name = case.str("node")?;
    if case.has_tensor("palette") {
        return quantized(case);
    }
    let output = call(name, inputs(case)?)?;
    let mut checks = Vec::new();
    for (i, slot) in output.slots.iter().enumerate() {
        let Slot::One(value) = slot else { bail!("slot {i} of {name} is no single value") };
        let role = format!("out{i}");
        let got = tensor_of(value)?;
        let (abs, rel) = tolerance(case)?;
        let mut check = Check::close(&role, &got, &case.tensor(&role)?, abs, rel)?;
        if name == "Canny" {
            check = share_of_pixels(&role, &got, &case.tensor(&role)?)?;
        }
        if !check.passed() && case.has_tensor(&format!("alt_{role}")) {
            let other = case.tensor(&format!("alt_{role}"))?;
            check = if name == "Canny" {
                share_of_pixels(&role, &got, &other)?
            } else {
                Check::close(&role, &got, &other, abs, rel)?
            };
        }
        checks.push(check);
        if let Some(latent) = value.downcast::<Latent>() {
            checks.extend(latent_extras(case, &role, &latent)?);
        }
    }
    Ok(Outcome::Ran(checks))
}

/// Noise mask and indices of a latent result.
fn latent_extras(case: &Case<'_>, role: &str, latent: &Latent) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    let mask = format!("{role}_noise_mask");
    if case.has_tensor(&mask) {
        let got = latent.noise_mask.as_ref().context("no noise mask")?;
        checks.push(Check::exact(&mask, got, &case.tensor(&mask)?)?);
    }
    let index = format!("{role}_batch_index");
    let wanted = case.json[&index].as_array();
    let wanted =
        wanted.map(|list| list.iter().filter_map(Json::as_u64).map(|i| i as usize).collect::<Vec<_>>());
    checks.push(Check::equal(&index, &latent.batch_index.as_deref(), &wanted.as_deref()));
    Ok(checks)
}

/// Allowed absolute and relative error.
fn tolerance(case: &Case<'_>) -> Result<(f64, f64)> {
    if let Some(own) = case.json["tolerance"].as_f64() {
        return Ok((own, 0.0));
    }
    let exact = case.json["inputs"]["upscale_method"] == "lanczos";
    match case.set.name.rsplit('/').next() {
        // Multiples of 1/255: equal up to the rounding of the division.
        Some("images") if exact => Ok((1e-7, 0.0)),
        Some("images") => Ok((2e-5, 0.0)),
        Some("masks") => Ok((1e-6, 0.0)),
        Some("latents") => Ok((1e-5, 1e-5)),
        other => bail!("no tolerance for the set {other:?}"),
    }
}

/// Edges: at most 5 % of the pixels may differ where magnitudes tie; none where the case has no alternative.
fn share_of_pixels(name: &str, got: &Tensor, want: &Tensor) -> Result<Check> {
    if got.dims() != want.dims() {
        bail!("{name}: shape {:?}, expected {:?}", got.dims(), want.dims())
    }
    let (got, want) = (values(got)?, values(want)?);
    let differing = got.iter().zip(&want).filter(|(a, b)| a != b).count();
    let share = differing as f64 / got.len().max(1) as f64;
    Ok(Check { name: name.to_owned(), ratio: share / 0.05, error: share })
}

/// The palette is chosen by median cut and must be the reference's; the dithers use it.
fn quantized(case: &Case<'_>) -> Result<Outcome> {
    let palette = case.tensor("palette")?.to_dtype(DType::F32)?.to_vec2::<f32>()?;
    let palette: Vec<[u8; 3]> = palette.iter().map(|c| [c[0] as u8, c[1] as u8, c[2] as u8]).collect();
    let dither = case.json["inputs"]["dither"].as_str().context("no dither")?.parse()?;
    let image = case.tensor("in.image")?;
    let given = quantize::with_palette(&image, &palette, dither)?;
    let output = call("ImageQuantize", inputs(case)?)?;
    let Some(Slot::One(own)) = output.slots.first() else { bail!("no result") };
    let want = case.tensor("out0")?;
    Ok(Outcome::Ran(vec![
        Check::close("out0 with the palette", &given, &want, 1e-7, 0.0)?,
        Check::close("out0", &tensor_of(own)?, &want, 1e-7, 0.0)?,
    ]))
}

/// A node that makes an operation, and the operation on a latent.
fn latent_operation(case: &Case<'_>) -> Result<Outcome> {
    let literals = case.field("inputs")?.as_object().context("inputs is no object")?;
    let literals = literals.iter().map(|(name, v)| (name.clone(), Value::Json(v.clone()))).collect();
    let made = call(case.str("node")?, literals)?;
    let Some(Slot::One(operation)) = made.slots.first() else { bail!("no operation") };
    let samples = Latent::new(case.tensor("in.samples")?).into_value();
    let inputs =
        Inputs::from_iter([("samples".to_owned(), samples), ("operation".to_owned(), operation.clone())]);
    let output = call("LatentApplyOperation", inputs)?;
    let Some(Slot::One(result)) = output.slots.first() else { bail!("no result") };
    let (abs, rel) = tolerance(case)?;
    Ok(Outcome::Ran(vec![Check::close("out0", &tensor_of(result)?, &case.tensor("out0")?, abs, rel)?]))
}

/// The functions that tiles go through in the reference cases.
fn function(
    case: &Case<'_>,
    axes: Vec<Scaling>,
) -> Result<impl FnMut(&Tensor) -> candle_core::Result<Tensor> + use<>> {
    let name = case.str("function")?;
    let down = name.starts_with("down_mean");
    if !down && !name.starts_with("nearest_up_plus_mean") {
        bail!("unknown function {name}")
    }
    let channels = case.usize("out_channels")?;
    Ok(move |tile: &Tensor| {
        let mean = tile.mean_all()?;
        let mut out = tile.narrow(1, 0, channels)?;
        for (d, scaling) in axes.iter().enumerate() {
            let n = out.dim(d + 2)?;
            out = if down {
                let factor = n / scaling.size(n).max(1);
                let mut shape = out.dims().to_vec();
                shape.splice(d + 2..d + 3, [n / factor, factor]);
                out.contiguous()?.reshape(shape)?.mean(d + 3)?
            } else {
                let m = scaling.size(n);
                let index: Vec<u32> = (0..m).map(|i| (i * n / m) as u32).collect();
                out.contiguous()?.index_select(&Tensor::new(index, tile.device())?, d + 2)?
            };
        }
        out.broadcast_add(&mean)
    })
}

fn tiled(case: &Case<'_>) -> Result<Outcome> {
    let x = case.tensor("x")?;
    let axes: Vec<Axis> = if case.operation() == "tiled_scale" {
        let tiles =
            Tiles { x: case.usize("tile_x")?, y: case.usize("tile_y")?, overlap: case.usize("overlap")? };
        tiles.axes(case.f64("upscale_amount")?).to_vec()
    } else {
        let amounts = case.field("upscale_amount")?.as_array().context("upscale_amount is no list")?;
        let (tiles, overlaps) = (case.usizes("tile")?, case.usizes("overlap")?);
        let scaling = |v: &Json| match (v.as_f64(), v.as_str()) {
            (Some(factor), _) => Ok(Scaling::Factor(factor)),
            (_, Some("max(0, 4a-3)")) => Ok(Scaling::ToFrames(4)),
            _ => Err(anyhow!("unknown scaling {v}")),
        };
        let parts = amounts.iter().zip(tiles).zip(overlaps);
        parts
            .map(|((v, tile), overlap)| Ok(Axis { tile, overlap, scaling: scaling(v)? }))
            .collect::<Result<_>>()?
    };
    let f = function(case, axes.iter().map(|a| a.scaling).collect())?;
    let got = tiled_scale(&x, &axes, f)?;
    Ok(Outcome::Ran(vec![Check::close("out", &got, &case.tensor("out")?, 1e-5, 1e-6)?]))
}

fn three_pass(case: &Case<'_>) -> Result<Outcome> {
    let x = case.tensor("x")?;
    let tiles = Tiles { x: case.usize("tile_x")?, y: case.usize("tile_y")?, overlap: case.usize("overlap")? };
    let factor = case.f64("upscale_amount")?;
    let f = function(case, vec![Scaling::Factor(factor); 2])?;
    let got = mean_of_tilings(&x, &tiles.decoding(), factor, f)?;
    Ok(Outcome::Ran(vec![Check::close("out", &got, &case.tensor("out")?, 1e-5, 1e-6)?]))
}
