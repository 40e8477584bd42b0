//! Adapters on single weights, and rounding to 8-bit floats.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use indexmap::IndexMap;
use lattice_kernels::{StoredDType, Weight};
use lattice_weights::StateDict;
use lattice_weights::adapters::{AdapterFile, KeyTable, Patch, Slice, Target};
use lattice_weights::patcher::{PatchSet, PatchedWeights};
use lattice_weights::rounding::{encode, seed_of_name, stochastic_fp8};

use lattice_models::detect::{Checkpoint, DiffusionPart};
use lattice_models::{ForwardOptions, TextInput, TextOptions};

use super::Operation;
use super::models::{checkpoint, compare, integer_rows, network_input, synthetic};
use crate::case::values;
use crate::{Case, Check, Outcome};

pub(super) const OPERATIONS: &[Operation] = &[
    ("adapters", "patch", patch),
    ("adapters", "stochastic_fp8", stochastic),
    ("adapters", "string_to_seed", string_to_seed),
    ("models", "lora_diffusion_model", lora_diffusion_model),
    ("models", "lora_unet_and_text", lora_unet_and_text),
];

fn dtype(name: &str) -> Result<StoredDType> {
    Ok(match name {
        "float32" => StoredDType::F32,
        "float16" => StoredDType::F16,
        "bfloat16" => StoredDType::BF16,
        "float8_e4m3fn" => StoredDType::F8E4M3,
        "float8_e5m2" => StoredDType::F8E5M2,
        other => bail!("unknown dtype {other}"),
    })
}

fn weight(tensor: &Tensor, dtype: StoredDType) -> Result<Weight> {
    let list: Vec<f32> = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
    let bytes = encode(&list, dtype).context("no plain type")?;
    Ok(Weight::new(dtype, tensor.dims(), bytes, None)?)
}

/// `patches` of the case, each with the adapter tensors of its number, applied to `weight` through the patcher.
fn patch(case: &Case<'_>) -> Result<Outcome> {
    let stored = dtype(case.str("dtype")?)?;
    let base = weight(&case.tensor("weight")?, stored)?;
    let slice = match case.json["offset"].as_array() {
        None => None,
        Some(list) => {
            let numbers: Vec<usize> =
                list.iter().filter_map(serde_json::Value::as_u64).map(|v| v as usize).collect();
            let [axis, start, length] = numbers[..] else { bail!("offset has no three numbers") };
            Some(Slice { axis, start, length })
        }
    };
    let target = Target { tensor: "x.weight".into(), slice, swap_halves: false };
    let table = KeyTable::from_targets([("x".to_owned(), target)]);
    let dict = |tensors| StateDict::new("case", tensors, BTreeMap::new());
    let mut model = PatchedWeights::new(dict(IndexMap::from([("x.weight".to_owned(), base.clone())])), "", 0);
    for (index, entry) in case.field("patches")?.as_array().context("patches is no list")?.iter().enumerate()
    {
        let number = |name: &str| entry[name].as_f64().ok_or_else(|| anyhow!("{name} is no number"));
        let prefix = format!("lora{index}.");
        let mut tensors = IndexMap::new();
        for role in case.field("tensors")?.as_object().context("tensors is no map")?.keys() {
            if let Some(name) = role.strip_prefix(&prefix) {
                tensors.insert(name.to_owned(), weight(&case.tensor(role)?, StoredDType::F32)?);
            }
        }
        let mut set = PatchSet::default();
        for (target, adapter) in AdapterFile::new(&dict(tensors)).patches(&table) {
            if target.tensor == "x.weight" {
                let (strength, model_strength) = (number("strength")?, number("strength_model")?);
                set.push(
                    target.tensor,
                    Patch { adapter, strength, model_strength, slice: target.slice, swap_halves: false },
                );
            }
        }
        model = model.with(Arc::new(set));
    }
    let patched = model.weights()?;
    let got = patched.get("x.weight").context("the weight is gone")?;
    let want = case.tensor("out")?;
    let got_tensor = got.to_tensor(&Device::Cpu)?;
    let want32 = want.to_dtype(DType::F32)?;
    if got_tensor.dims() != want.dims() {
        bail!("shape {:?}, expected {:?}", got_tensor.dims(), want.dims())
    }
    let rotation = case.field("patches")?.to_string().contains("oft");
    let tolerance = if rotation { 1e-4 } else { 2e-5 };
    // Halves may be off by one unit in the last place beside the tolerance of the arithmetic.
    let mut check = Check { name: "out".into(), ratio: 0.0, error: 0.0 };
    for (g, w) in values(&got_tensor)?.into_iter().zip(values(&want32)?) {
        let error = (g - w).abs();
        let allowed = tolerance + tolerance * w.abs() + unit_in_last_place(stored, w);
        let ratio = error / allowed;
        if ratio.is_nan() || ratio > check.ratio {
            check.ratio = ratio;
        }
        check.error = check.error.max(error);
    }
    let mut checks = vec![check, Check::equal("dtype", &got.dtype(), &stored)];
    if case.json["unchanged"].as_bool() == Some(true) {
        checks.push(Check::equal("unchanged values", &got.to_f32(), &base.to_f32()));
    }
    Ok(Outcome::Ran(checks))
}

fn unit_in_last_place(dtype: StoredDType, v: f64) -> f64 {
    let v = v.abs() as f32;
    match dtype {
        StoredDType::F16 => {
            f64::from(f16::from_bits(f16::from_f32(v).to_bits() + 1).to_f32())
                - f64::from(f16::from_f32(v).to_f32())
        }
        StoredDType::BF16 => {
            f64::from(bf16::from_bits(bf16::from_f32(v).to_bits() + 1).to_f32())
                - f64::from(bf16::from_f32(v).to_f32())
        }
        _ => 0.0,
    }
}

fn stochastic(case: &Case<'_>) -> Result<Outcome> {
    let input: Vec<f32> = case.tensor("value")?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
    let seed = seed_of_name(case.str("key")?);
    let got = stochastic_fp8(&input, dtype(case.str("dtype")?)?, seed).context("not an 8-bit type")?;
    let want: Vec<u8> = case.tensor("bytes")?.to_dtype(DType::U8)?.flatten_all()?.to_vec1()?;
    Ok(Outcome::Ran(vec![
        Check::equal("seed", &u64::from(seed), &case.seed("seed")?),
        Check::equal("bytes", &got, &Bytes::from(want)),
    ]))
}

fn string_to_seed(case: &Case<'_>) -> Result<Outcome> {
    let got = u64::from(seed_of_name(case.str("key")?));
    Ok(Outcome::Ran(vec![Check::equal("seed", &got, &case.seed("seed")?)]))
}

/// The case's adapter file.
fn adapter_file(case: &Case<'_>) -> Result<AdapterFile> {
    let params = case.field("params")?;
    let manifest = params["lora_manifest"].as_str().context("the case names no adapter")?;
    let seed = params["lora_seed"].as_u64().context("the adapter has no seed")?;
    Ok(AdapterFile::new(&synthetic(manifest, seed, "F32")?))
}

fn strength(case: &Case<'_>, name: &str) -> Result<f64> {
    case.field("params")?[name].as_f64().with_context(|| format!("the case has no {name}"))
}

/// Weights with the file's changes, and how many of these there are (several may share a tensor).
fn adapted(
    weights: &StateDict,
    prefix: &str,
    table: &KeyTable,
    file: &AdapterFile,
    strength: f64,
) -> Result<(StateDict, u64)> {
    let patches = file.patches(table);
    let count = patches.len() as u64;
    let set = PatchSet::new(patches, strength);
    let model = PatchedWeights::new(weights.clone(), prefix, 0).with(Arc::new(set));
    Ok((model.weights()?, count))
}

/// The network's output with the adapter on it; the number of patches where the case says it.
fn adapted_network(
    case: &Case<'_>,
    part: &DiffusionPart,
    file: &AdapterFile,
    output: &str,
) -> Result<Vec<Check>> {
    let table = KeyTable::network(&part.weights);
    let strength = strength(case, "strength_model")?;
    let (weights, count) = adapted(&part.weights, "diffusion_model.", &table, file, strength)?;
    let network = part.with_weights(weights)?.network;
    let out = network.forward(&network_input(case)?, &ForwardOptions::default())?;
    let mut checks = vec![compare(case, output, &out)?];
    if let Some(wanted) = case.json["patched"]["unet"].as_u64() {
        checks.push(Check::equal("patches", &count, &wanted));
    }
    Ok(checks)
}

fn lora_diffusion_model(case: &Case<'_>) -> Result<Outcome> {
    let part = DiffusionPart::load(&checkpoint(case)?)?;
    Ok(Outcome::Ran(adapted_network(case, &part, &adapter_file(case)?, "out")?))
}

fn lora_unet_and_text(case: &Case<'_>) -> Result<Outcome> {
    let model = Checkpoint::load(&checkpoint(case)?)?;
    let file = adapter_file(case)?;
    let mut checks = adapted_network(case, &model.diffusion, &file, "unet")?;
    let names: Vec<&str> = model.text_encoders.iter().map(|part| part.kind.name()).collect();
    let part = model.text_encoders.first().context("the checkpoint has no text encoder")?;
    let table = KeyTable::text_encoder(part.kind.name(), &names, &part.weights);
    let prefix = format!("{}.transformer.", part.kind.name());
    let (weights, _) = adapted(&part.weights, &prefix, &table, &file, strength(case, "strength_clip")?)?;
    let text = TextInput::from_ids(&integer_rows(&case.tensor("input_ids")?)?);
    let out = part.with_weights(weights)?.encoder.encode(&text, TextOptions::default())?;
    checks.push(compare(case, "text_last_hidden_state", &out.states)?);
    Ok(Outcome::Ran(checks))
}
