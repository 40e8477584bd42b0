//! A manifest as a safetensors file, or as a state dict in memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use indexmap::IndexMap;
use lattice_weights::{StateDict, StoredDType};
use rayon::prelude::*;
use serde_json::{Map, Value as Json, json};

use super::manifest::DTYPES;
use super::{Manifest, TensorPlan};

/// Elements encoded at a time: large files stream through a buffer of this many.
const CHUNK: usize = 1 << 20;

/// The name of a storage type that files can be made of.
fn dtype_name(dtype: StoredDType) -> Result<&'static str> {
    let found = DTYPES.iter().find(|(_, d)| *d == dtype);
    found.map(|(name, _)| *name).with_context(|| format!("no files are made of dtype {dtype:?}"))
}

/// JSON with object keys sorted on every level.
fn sorted(value: &Json) -> Json {
    match value {
        Json::Object(map) => {
            let ordered: BTreeMap<_, _> = map.iter().map(|(k, v)| (k.clone(), sorted(v))).collect();
            Json::Object(ordered.into_iter().collect())
        }
        Json::Array(list) => Json::Array(list.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

/// Compact JSON whose numbers read as Python prints them: shortest digits, an exponent (signed, two digits) only below
/// 1e-4 and from 1e16.
struct PythonNumbers;

impl serde_json::ser::Formatter for PythonNumbers {
    fn write_f64<W: ?Sized + Write>(&mut self, writer: &mut W, value: f64) -> std::io::Result<()> {
        let scientific = format!("{value:e}");
        let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
        match exponent.parse::<i32>() {
            Ok(power) if power < -4 => write!(writer, "{digits}e-{:02}", -power),
            Ok(power) if power >= 16 => write!(writer, "{digits}e+{power:02}"),
            _ => write!(writer, "{value:?}"),
        }
    }
}

/// Compact JSON text with sorted keys.
fn python_json(value: &Json) -> Result<String> {
    let mut text = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, PythonNumbers);
    serde::Serialize::serialize(&sorted(value), &mut serializer)?;
    Ok(String::from_utf8(text)?)
}

impl Manifest {
    /// Text metadata of the made file: what a loader may ask for because reduced widths do not tell it.
    fn file_metadata(&self, seed: u64) -> Result<IndexMap<String, String>> {
        let mut meta = IndexMap::from([
            ("format".to_owned(), "pt".to_owned()),
            ("lattice.manifest".to_owned(), self.name.clone()),
            ("lattice.seed".to_owned(), seed.to_string()),
        ]);
        if let Some(family) = &self.family {
            meta.insert("lattice.family".into(), family.clone());
        }
        if !self.hparams.is_null() {
            meta.insert("lattice.hparams".into(), python_json(&self.hparams)?);
        }
        meta.extend(self.metadata.clone());
        Ok(meta)
    }

    /// The file's length prefix and JSON header, padded to 8 bytes; and the length of the data after it.
    fn header(&self, seed: u64, dtype: StoredDType) -> Result<(Vec<u8>, u64)> {
        let mut head = Map::new();
        head.insert("__metadata__".into(), serde_json::to_value(self.file_metadata(seed)?)?);
        let mut offset = 0u64;
        for (name, plan) in self.plans(seed, dtype) {
            let end = offset + plan.bytes() as u64;
            let entry = json!({
                "dtype": dtype_name(plan.dtype)?, "shape": plan.shape, "data_offsets": [offset, end],
            });
            head.insert(name.to_owned(), entry);
            offset = end;
        }
        let mut text = serde_json::to_vec(&Json::Object(head))?;
        text.resize(text.len().next_multiple_of(8), b' ');
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.append(&mut text);
        Ok((bytes, offset))
    }

    /// Writes the safetensors file to any sink, a buffer at a time.
    pub fn write_to(&self, sink: &mut impl Write, seed: u64, dtype: StoredDType) -> Result<()> {
        sink.write_all(&self.header(seed, dtype)?.0)?;
        let mut buffer = Vec::new();
        for (_, plan) in self.plans(seed, dtype) {
            let (elements, size) = (plan.elements(), plan.dtype.size());
            for start in (0..elements).step_by(CHUNK) {
                buffer.resize((elements - start).min(CHUNK) * size, 0);
                encode_parallel(&plan, start, &mut buffer);
                sink.write_all(&buffer)?;
            }
        }
        Ok(())
    }

    /// Writes the safetensors file.
    pub fn write(&self, path: &Path, seed: u64, dtype: StoredDType) -> Result<()> {
        let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
        let mut sink = BufWriter::new(file);
        self.write_to(&mut sink, seed, dtype)?;
        sink.flush().with_context(|| format!("writing {}", path.display()))
    }

    /// Writes the header only and extends the file with a hole of zeros to its full length: full-size layouts for loader
    /// tests at no cost in disk space.
    pub fn write_sparse(&self, path: &Path, seed: u64, dtype: StoredDType) -> Result<()> {
        let mut file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
        let (header, data) = self.header(seed, dtype)?;
        file.write_all(&header)?;
        file.set_len(header.len() as u64 + data)?;
        Ok(())
    }

    /// The file, made and opened in memory.
    pub fn state_dict(&self, seed: u64, dtype: StoredDType) -> Result<StateDict> {
        let mut file = Vec::new();
        self.write_to(&mut file, seed, dtype)?;
        Ok(lattice_weights::safetensors::from_bytes(&format!("{} (seed {seed})", self.name), file.into())?)
    }
}

fn encode_parallel(plan: &TensorPlan, start: usize, out: &mut [u8]) {
    const PIECE: usize = 1 << 14;
    out.par_chunks_mut(PIECE * plan.dtype.size())
        .enumerate()
        .for_each(|(i, piece)| plan.encode(start + i * PIECE, piece));
}
