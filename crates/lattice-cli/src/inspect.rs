//! `lattice inspect`: what a model file holds, without reading its tensors.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use lattice_models::detect::{DiffusionPart, ModelSpec, TextPart, VaePart};
use lattice_models::{Checkpoint, DetectError};
use lattice_weights::adapters::AdapterFile;
use lattice_weights::{StateDict, Weight, open_any};

use crate::listing::size;

/// Longest metadata text that is printed whole.
const METADATA_LENGTH: usize = 200;

pub(crate) fn inspect(file: &Path, tensors: bool) -> Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    let dict = open_any(file)?;
    writeln!(
        out,
        "{}: {} tensors, {}",
        file.display(),
        dict.len(),
        size(bytes(dict.iter().map(|(_, w)| w)))
    )?;
    match describe(&dict) {
        Ok(lines) => {
            for line in lines {
                writeln!(out, "  {line}")?;
            }
        }
        Err(error) => writeln!(out, "  not recognised: {error}")?,
    }
    writeln!(out, "parts:")?;
    for (name, part) in parts(&dict) {
        writeln!(
            out,
            "  {name}: {} tensors, {}, {}",
            part.len(),
            size(bytes(part.iter().copied())),
            dtypes(&part)
        )?;
    }
    if !dict.metadata().is_empty() {
        writeln!(out, "metadata:")?;
        for (key, text) in dict.metadata() {
            let short: String = text.chars().take(METADATA_LENGTH).collect();
            let more =
                if short.len() < text.len() { format!(" ... ({} bytes)", text.len()) } else { String::new() };
            writeln!(out, "  {key}: {short}{more}")?;
        }
    }
    if tensors {
        writeln!(out, "tensors:")?;
        for (name, weight) in dict.iter() {
            writeln!(out, "  {name}  {:?}  {:?}", weight.dtype(), weight.dims())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn bytes<'a>(weights: impl Iterator<Item = &'a Weight>) -> u64 {
    weights.map(|w| w.bytes().len() as u64).sum()
}

/// Tensors by the first part of their names, or the first two where the first says little.
fn parts(dict: &StateDict) -> BTreeMap<String, Vec<&Weight>> {
    let mut parts: BTreeMap<String, Vec<&Weight>> = BTreeMap::new();
    for (name, weight) in dict.iter() {
        let mut words = name.split('.');
        let first = words.next().unwrap_or_default();
        let name = match (first, words.next()) {
            ("model" | "text_encoders" | "conditioner", Some(second)) => format!("{first}.{second}"),
            _ => first.to_owned(),
        };
        parts.entry(name).or_default().push(weight);
    }
    parts
}

/// Storage types with their share of the elements, most common first.
fn dtypes(part: &[&Weight]) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for weight in part {
        *counts.entry(format!("{:?}", weight.dtype())).or_default() += weight.elem_count();
    }
    let total = counts.values().sum::<usize>().max(1) as f64;
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let share = |(dtype, count): &(String, usize)| format!("{dtype} {:.1} %", 100.0 * *count as f64 / total);
    counts.iter().map(share).collect::<Vec<_>>().join(", ")
}

/// What the file is, as far as its tensors tell.
fn describe(dict: &StateDict) -> Result<Vec<String>, DetectError> {
    let unknown = match Checkpoint::load(dict) {
        Ok(checkpoint) => {
            let mut lines = diffusion(&checkpoint.diffusion);
            lines.extend(checkpoint.text_encoders.iter().map(|t| format!("text encoder: {}", t.kind.name())));
            lines.extend(checkpoint.vae.iter().map(vae));
            return Ok(lines);
        }
        Err(error) => error,
    };
    if let Ok(part) = VaePart::load(dict) {
        return Ok(vec![vae(&part)]);
    }
    if let Ok(part) = TextPart::load(dict) {
        return Ok(vec![format!("text encoder: {}", part.kind.name())]);
    }
    let adapter = AdapterFile::new(dict);
    if !adapter.is_empty() {
        return Ok(vec![format!("adapter (LoRA or its kin) of {} modules", adapter.len())]);
    }
    Err(unknown)
}

fn diffusion(part: &DiffusionPart) -> Vec<String> {
    let ModelSpec { family, prediction, schedule, latent_format, in_channels, context_width, dtype, .. } =
        &part.spec;
    let context = context_width.map(|w| format!(", text width {w}")).unwrap_or_default();
    vec![
        format!("diffusion model: {}, stored as {dtype:?}", family.name()),
        format!("  {in_channels} input channels{context}, latents {}", latent_format.name()),
        format!("  prediction {prediction:?}, noise levels {schedule:?}"),
    ]
}

fn vae(part: &VaePart) -> String {
    format!(
        "VAE: {} latent channels, {} pixels a cell",
        part.vae.latent_channels(),
        part.vae.spatial_factor()
    )
}
