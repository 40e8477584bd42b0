//! One case of a set, and what comparing it yields.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use candle_core::{DType, Device, Tensor};
use serde_json::Value as Json;

/// A JSON index with its tensors.
pub struct Set {
    /// Name below the folder, such as `samplers/options`.
    pub name: String,
    /// Topic: the sub-folder's name.
    pub topic: String,
    /// Where the index lies.
    pub path: PathBuf,
    /// The whole index.
    pub index: Json,
    tensors: HashMap<String, Tensor>,
}

impl Set {
    /// Reads an index and the safetensors file beside it (if there is one).
    pub fn open(root: &Path, path: &Path) -> Result<Self> {
        let text = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        let index: Json =
            serde_json::from_slice(&text).with_context(|| format!("parsing {}", path.display()))?;
        let relative = path.strip_prefix(root).unwrap_or(path).with_extension("");
        let name = relative.to_string_lossy().replace('\\', "/");
        let topic = match index["topic"].as_str() {
            Some(topic) => topic.to_owned(),
            None => relative.parent().and_then(|p| p.file_name()).map_or_else(
                || root.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                |p| p.to_string_lossy().into_owned(),
            ),
        };
        let file = path.with_extension("safetensors");
        let tensors =
            if file.exists() { candle_core::safetensors::load(&file, &Device::Cpu)? } else { HashMap::new() };
        Ok(Self { name, topic, path: path.to_owned(), index, tensors })
    }

    /// The cases.
    pub fn cases(&self) -> impl Iterator<Item = Case<'_>> {
        self.index["cases"].as_array().into_iter().flatten().map(|json| Case { set: self, json })
    }

    /// A tensor of the file by its full name.
    pub fn tensor(&self, key: &str) -> Result<Tensor> {
        self.tensors.get(key).cloned().ok_or_else(|| anyhow!("{}: no tensor {key}", self.name))
    }
}

/// One case.
#[derive(Clone, Copy)]
pub struct Case<'a> {
    /// The set it stands in.
    pub set: &'a Set,
    /// Its entry in the index.
    pub json: &'a Json,
}

impl<'a> Case<'a> {
    /// Identifier within the set.
    pub fn id(&self) -> &'a str {
        self.json["id"].as_str().unwrap_or("?")
    }

    /// Operation: `op` (network cases) or `kind`.
    pub fn operation(&self) -> &'a str {
        self.json["op"].as_str().or_else(|| self.json["kind"].as_str()).unwrap_or("?")
    }

    /// A field that must be there.
    pub fn field(&self, name: &str) -> Result<&'a Json> {
        match &self.json[name] {
            Json::Null => bail!("case {} has no field {name}", self.id()),
            v => Ok(v),
        }
    }

    /// A text field.
    pub fn str(&self, name: &str) -> Result<&'a str> {
        self.field(name)?.as_str().ok_or_else(|| anyhow!("{name} is no text"))
    }

    /// A number field.
    pub fn f64(&self, name: &str) -> Result<f64> {
        self.field(name)?.as_f64().ok_or_else(|| anyhow!("{name} is no number"))
    }

    /// A count field.
    pub fn usize(&self, name: &str) -> Result<usize> {
        self.field(name)?.as_u64().map(|v| v as usize).ok_or_else(|| anyhow!("{name} is no count"))
    }

    /// A 64-bit integer written as a decimal string (or a number).
    pub fn seed(&self, name: &str) -> Result<u64> {
        let v = self.field(name)?;
        match v.as_str() {
            Some(s) => Ok(s.parse()?),
            None => v.as_u64().ok_or_else(|| anyhow!("{name} is no seed")),
        }
    }

    /// A list of counts, such as a shape.
    pub fn usizes(&self, name: &str) -> Result<Vec<usize>> {
        let list = self.field(name)?.as_array().ok_or_else(|| anyhow!("{name} is no list"))?;
        list.iter()
            .map(|v| v.as_u64().map(|v| v as usize).ok_or_else(|| anyhow!("{name}: {v} is no count")))
            .collect()
    }

    /// Whether the case names a tensor of that role.
    pub fn has_tensor(&self, role: &str) -> bool {
        ["tensors", "inputs", "outputs"].iter().any(|group| self.json[group][role].is_string())
    }

    /// The tensor of a role (`tensors`, `inputs` or `outputs` of the entry) as stored.
    pub fn tensor(&self, role: &str) -> Result<Tensor> {
        let key = ["tensors", "inputs", "outputs"].iter().find_map(|group| self.json[group][role].as_str());
        self.set.tensor(key.ok_or_else(|| anyhow!("case {} has no tensor {role}", self.id()))?)
    }

    /// The set's `tolerance`, or the case's own where it has one.
    pub fn tolerance(&self) -> &'a Json {
        if self.json["tolerance"].is_null() { &self.set.index["tolerance"] } else { &self.json["tolerance"] }
    }
}

/// One compared value of a case.
#[derive(Clone, Debug)]
pub struct Check {
    /// What was compared.
    pub name: String,
    /// Worst error divided by what is allowed: at most 1 passes. NaN fails.
    pub ratio: f64,
    /// The error as a number worth printing.
    pub error: f64,
}

/// Result of running a case.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It ran; every check's ratio must be at most 1.
    Ran(Vec<Check>),
    /// It cannot be run here, with the reason.
    Skipped(String),
}

/// All elements as f64.
pub fn values(t: &Tensor) -> Result<Vec<f64>> {
    Ok(t.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}

impl Check {
    /// |got - want| <= abs + rel |want| elementwise; NaN equals NaN, infinities equal themselves. Shapes must agree.
    pub fn close(name: &str, got: &Tensor, want: &Tensor, abs: f64, rel: f64) -> Result<Self> {
        if got.dims() != want.dims() {
            bail!("{name}: shape {:?}, expected {:?}", got.dims(), want.dims())
        }
        Ok(Self::close_values(name, &values(got)?, &values(want)?, abs, rel))
    }

    /// As [`Check::close`] over plain numbers; different lengths fail.
    pub fn close_values(name: &str, got: &[f64], want: &[f64], abs: f64, rel: f64) -> Self {
        if got.len() != want.len() {
            return Self {
                name: format!("{name} (length {} for {})", got.len(), want.len()),
                ratio: f64::NAN,
                error: f64::NAN,
            };
        }
        let (mut ratio, mut error) = (0f64, 0f64);
        for (&g, &w) in got.iter().zip(want) {
            if g == w || (g.is_nan() && w.is_nan()) {
                continue;
            }
            let e = (g - w).abs();
            let r = e / (abs + rel * w.abs());
            // f64::max would drop a NaN.
            error = if e.is_nan() || e > error { e } else { error };
            ratio = if r.is_nan() || r > ratio { r } else { ratio };
        }
        Self { name: name.to_owned(), ratio, error }
    }

    /// Every element equal, bit for bit up to NaN.
    pub fn exact(name: &str, got: &Tensor, want: &Tensor) -> Result<Self> {
        Self::close(name, got, want, 0.0, 0.0)
    }

    /// Two things that must be equal.
    pub fn equal<T: PartialEq + std::fmt::Debug>(name: &str, got: &T, want: &T) -> Self {
        if got == want {
            Self { name: name.to_owned(), ratio: 0.0, error: 0.0 }
        } else {
            let short = |v: &T| format!("{v:?}").chars().take(200).collect::<String>();
            Self {
                name: format!("{name}: {} for {}", short(got), short(want)),
                ratio: f64::INFINITY,
                error: f64::INFINITY,
            }
        }
    }

    /// Network tolerance: max|a-b| / max|b| <= `max_rel` and mean|a-b| / mean|b| <= `mean_rel`.
    pub fn relative(name: &str, got: &Tensor, want: &Tensor, max_rel: f64, mean_rel: f64) -> Result<Self> {
        if got.dims() != want.dims() {
            bail!("{name}: shape {:?}, expected {:?}", got.dims(), want.dims())
        }
        let (got, want) = (values(got)?, values(want)?);
        let (mut max_e, mut sum_e, mut max_w, mut sum_w) = (0f64, 0f64, 0f64, 0f64);
        for (&g, &w) in got.iter().zip(&want) {
            let e = (g - w).abs();
            max_e = if e.is_nan() || e > max_e { e } else { max_e };
            sum_e += e;
            max_w = max_w.max(w.abs());
            sum_w += w.abs();
        }
        let (max, mean) = (max_e / max_w.max(1e-30), sum_e / sum_w.max(1e-30));
        let ratio = if max.is_nan() { max } else { (max / max_rel).max(mean / mean_rel) };
        Ok(Self { name: name.to_owned(), ratio, error: max })
    }

    /// Whether the error is within what is allowed.
    pub fn passed(&self) -> bool {
        self.ratio <= 1.0
    }
}
