//! Which parameter of a model an adapter's module name means.
//!
//! Files name modules with dots or underscores, by the checkpoint's own names or by those of the diffusers library, under one of
//! many prefixes. All of it is brought to one form - dots as underscores, attention `processor` left out - in which a
//! [`KeyTable`] of a component is a list of prefixes and a map from paths to parameters. The paths follow from the component's
//! own tensor names by the rules below, so models of any depth have their table.

mod text;
mod transformer;
mod unet;

use std::collections::HashMap;
use std::fmt;

use crate::StateDict;

/// Part of a parameter: elements `start..start + length` of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slice {
    /// Axis.
    pub axis: usize,
    /// First element.
    pub start: usize,
    /// Number of elements.
    pub length: usize,
}

impl fmt::Display for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "elements {}..{}+{} of axis {}", self.start, self.start, self.length, self.axis)
    }
}

impl Slice {
    /// Runs of consecutive elements before, in and around the part: (outer count, inner size, axis size).
    fn layout(self, shape: &[usize]) -> Option<(usize, usize, usize)> {
        let size = *shape.get(self.axis)?;
        self.start.checked_add(self.length).filter(|&end| end <= size)?;
        Some((shape[..self.axis].iter().product(), shape[self.axis + 1..].iter().product(), size))
    }

    /// The part's shape and values; `None` if the shape has no such part.
    pub(super) fn take(self, shape: &[usize], values: &[f32]) -> Option<(Vec<usize>, Vec<f32>)> {
        let (outer, inner, size) = self.layout(shape)?;
        let mut out = Vec::with_capacity(outer * self.length * inner);
        for block in 0..outer {
            let start = (block * size + self.start) * inner;
            out.extend_from_slice(&values[start..start + self.length * inner]);
        }
        let mut part = shape.to_vec();
        part[self.axis] = self.length;
        Some((part, out))
    }

    /// Writes the part back (nothing if it does not fit).
    pub(super) fn put(self, shape: &[usize], values: &mut [f32], part: &[f32]) {
        let Some((outer, inner, size)) = self.layout(shape) else { return };
        let run = self.length * inner;
        if part.len() != outer * run {
            return;
        }
        for block in 0..outer {
            let start = (block * size + self.start) * inner;
            values[start..start + run].copy_from_slice(&part[block * run..(block + 1) * run]);
        }
    }
}

/// Where a module's change goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Tensor name within the component.
    pub tensor: String,
    /// The part that is meant.
    pub slice: Option<Slice>,
    /// Scale and shift are in the other order in the files that use this name.
    pub swap_halves: bool,
}

impl Target {
    fn whole(tensor: String) -> Self {
        Self { tensor, slice: None, swap_halves: false }
    }

    /// The bias beside a weight.
    pub(super) fn bias(&self) -> Option<Self> {
        let layer = self.tensor.strip_suffix(".weight")?;
        Some(Self { tensor: format!("{layer}.bias"), ..self.clone() })
    }
}

/// The module names of one component.
#[derive(Clone, Debug, Default)]
pub struct KeyTable {
    prefixes: Vec<String>,
    paths: HashMap<String, Target>,
}

impl KeyTable {
    /// The table of a diffusion network from its weights (names without prefix).
    pub fn network(weights: &StateDict) -> Self {
        let mut table = Self::own_names(weights);
        table.prefixes = NETWORK_PREFIXES.map(String::from).to_vec();
        if weights.contains("input_blocks.0.0.weight") {
            unet::add(&mut table, weights);
        } else {
            transformer::add(&mut table, weights);
        }
        table
    }

    /// The table of a text encoder from its weights (Hugging Face names without prefix); `kind` is its name (`clip_l`, `clip_g`,
    /// `t5xxl`, ...), `all` the names of all encoders of the model, which decide what `te1`, `te2` and so on mean.
    pub fn text_encoder(kind: &str, all: &[&str], weights: &StateDict) -> Self {
        let mut table = Self::own_names(weights);
        table.prefixes = text::prefixes(kind, all);
        table
    }

    /// A table of a caller's own making: module names with their targets.
    pub fn from_targets(targets: impl IntoIterator<Item = (String, Target)>) -> Self {
        let paths = targets.into_iter().map(|(name, target)| (canonical(&name), target)).collect();
        Self { prefixes: vec![String::new()], paths }
    }

    /// What a module name means; `None` if it is not of this component.
    pub fn find(&self, module: &str) -> Option<&Target> {
        let name = canonical(module);
        self.prefixes.iter().find_map(|prefix| self.paths.get(name.strip_prefix(prefix.as_str())?))
    }

    fn own_names(weights: &StateDict) -> Self {
        let mut table = Self::default();
        for (name, _) in weights.iter() {
            let path = name.strip_suffix(".weight").unwrap_or(name);
            table.paths.insert(canonical(path), Target::whole(name.to_owned()));
        }
        table
    }

    /// Adds a path if the model has the target.
    fn add(&mut self, weights: &StateDict, path: &str, target: Target) {
        if weights.contains(&target.tensor) {
            // Some trainers leave the index of an output projection's only layer out.
            if let Some(short) = path.strip_suffix(".to_out.0") {
                self.paths.insert(canonical(&format!("{short}.to_out")), target.clone());
            }
            self.paths.insert(canonical(path), target);
        }
    }
}

/// Prefixes of modules of a diffusion network, in the common form.
const NETWORK_PREFIXES: [&str; 12] = [
    "diffusion_model_",
    "model_diffusion_model_",
    "lora_unet_",
    "lycoris_",
    "unet_",
    "lora_transformer_",
    "transformer_",
    "base_model_model_unet_",
    "base_model_model_transformer_",
    "base_model_model_",
    "base_model_model_diffusion_model_",
    "",
];

/// One form for names with dots and with underscores, with and without attention processors.
fn canonical(name: &str) -> String {
    name.replace('.', "_").replace("_processor_", "_")
}
