//! The layout of a model file.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use indexmap::IndexMap;
use lattice_weights::StoredDType;
use regex::Regex;
use serde::Deserialize;
use serde_json::Value as Json;

use super::values::{Fill, TensorPlan, default_fill, fan_in_std};

/// A model file's layout: names and shapes in file order, and what the tensors do not say.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// Name, such as `tiny/sd15`.
    pub name: String,
    /// Family name.
    pub family: Option<String>,
    /// Shape of each tensor, in file order.
    pub tensors: IndexMap<String, Vec<usize>>,
    /// Key prefix of each component in the file.
    pub prefixes: IndexMap<String, String>,
    /// Settings, many of them not visible in the tensors.
    pub hparams: Json,
    /// Further header metadata.
    pub metadata: IndexMap<String, String>,
    dtypes: HashMap<String, StoredDType>,
    keep_f32: Vec<Regex>,
    init: Vec<(Regex, Init)>,
}

#[derive(Clone, Debug)]
enum Init {
    Fill(Fill),
    /// Mean, and the standard deviation by fan-in.
    FanIn(f64),
}

/// As it stands in the JSON file.
#[derive(Deserialize)]
struct Raw {
    name: String,
    family: Option<String>,
    tensors: IndexMap<String, Vec<usize>>,
    #[serde(default)]
    prefixes: IndexMap<String, String>,
    #[serde(default)]
    hparams: Json,
    #[serde(default)]
    metadata: IndexMap<String, String>,
    #[serde(default)]
    dtypes: HashMap<String, String>,
    #[serde(default)]
    keep_f32: Vec<String>,
    #[serde(default)]
    init: Vec<Vec<Json>>,
}

/// Storage types that files are made of, by their names in the safetensors format.
pub(super) const DTYPES: [(&str, StoredDType); 9] = [
    ("F64", StoredDType::F64),
    ("F32", StoredDType::F32),
    ("F16", StoredDType::F16),
    ("BF16", StoredDType::BF16),
    ("F8_E4M3", StoredDType::F8E4M3),
    ("I64", StoredDType::I64),
    ("I32", StoredDType::I32),
    ("U8", StoredDType::U8),
    ("BOOL", StoredDType::Bool),
];

impl Manifest {
    /// Reads `NAME`, `NAME.json` or `NAME.json.gz` below `root`.
    ///
    /// # Errors
    /// If there is no such file, or it is not a manifest.
    pub fn find(root: &Path, name: &str) -> Result<Self> {
        let candidates = ["", ".json", ".json.gz"].map(|end| root.join(format!("{name}{end}")));
        match candidates.iter().find(|p| p.is_file()) {
            Some(path) => Self::read(path),
            None => bail!("no manifest {name} below {}", root.display()),
        }
    }

    /// Reads a manifest, gzipped if its name ends in `.gz`.
    pub fn read(path: &Path) -> Result<Self> {
        let file = std::fs::File::open(path).with_context(|| format!("opening {}", path.display()))?;
        let mut text = String::new();
        if path.extension().is_some_and(|e| e == "gz") {
            flate2::read::GzDecoder::new(file).read_to_string(&mut text)
        } else {
            std::io::BufReader::new(file).read_to_string(&mut text)
        }
        .with_context(|| format!("reading {}", path.display()))?;
        let raw = serde_json::from_str(&text).with_context(|| format!("parsing {}", path.display()))?;
        Self::from_raw(raw).with_context(|| format!("in {}", path.display()))
    }

    /// The manifests in the project's test data, for code that runs inside the source tree.
    pub fn project_root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/manifests")
    }

    fn from_raw(raw: Raw) -> Result<Self> {
        let dtypes = raw
            .dtypes
            .iter()
            .map(|(name, dtype)| match DTYPES.iter().find(|(known, _)| known == dtype) {
                Some((_, d)) => Ok((name.clone(), *d)),
                None => bail!("tensor {name} has unknown dtype {dtype}"),
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            name: raw.name,
            family: raw.family,
            tensors: raw.tensors,
            prefixes: raw.prefixes,
            hparams: raw.hparams,
            metadata: raw.metadata,
            dtypes,
            keep_f32: raw.keep_f32.iter().map(|p| Ok(Regex::new(p)?)).collect::<Result<_>>()?,
            init: raw.init.iter().map(|entry| init_rule(entry)).collect::<Result<_>>()?,
        })
    }

    /// How each tensor is filled and stored, in file order. `dtype` is the storage type of all tensors that the manifest
    /// does not fix.
    pub fn plans(&self, seed: u64, dtype: StoredDType) -> impl Iterator<Item = (&str, TensorPlan)> {
        self.tensors.iter().map(move |(name, shape)| {
            let dtype = match self.dtypes.get(name) {
                Some(&fixed) => fixed,
                None if self.keep_f32.iter().any(|p| p.is_match(name)) => StoredDType::F32,
                None => dtype,
            };
            (name.as_str(), TensorPlan::new(name, shape, seed, dtype, self.fill(name, shape)))
        })
    }

    fn fill(&self, name: &str, shape: &[usize]) -> Fill {
        match self.init.iter().find(|(pattern, _)| pattern.is_match(name)) {
            Some((_, Init::Fill(fill))) => fill.clone(),
            Some((_, Init::FanIn(mean))) => Fill::Uniform { mean: *mean, std: fan_in_std(shape) },
            None => default_fill(name, shape),
        }
    }
}

/// `[regex, mean, std]` (std null: by fan-in) or `[regex, "const:VALUE"]`.
fn init_rule(entry: &[Json]) -> Result<(Regex, Init)> {
    let rule = match entry {
        [Json::String(_), Json::String(fill)] => match fill.strip_prefix("const:") {
            Some(value) => Init::Fill(Fill::Constant(value.parse()?)),
            None if fill == "arange" => Init::Fill(Fill::Arange),
            None => bail!("unknown fill {fill}"),
        },
        [Json::String(_), mean, std] => match (mean.as_f64(), std.as_f64()) {
            (Some(mean), Some(std)) => Init::Fill(Fill::Uniform { mean, std }),
            (Some(mean), None) if std.is_null() => Init::FanIn(mean),
            _ => bail!("init rule {entry:?} has no numbers"),
        },
        _ => bail!("init rule {entry:?} is neither [regex, mean, std] nor [regex, fill]"),
    };
    Ok((Regex::new(entry[0].as_str().unwrap_or_default())?, rule))
}
