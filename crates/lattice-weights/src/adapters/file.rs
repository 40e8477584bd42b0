//! Reading adapter files of every layout into modules.

use std::sync::Arc;

use indexmap::IndexMap;

use super::module::{Adapter, LORA_PAIRS, OTHER_SUFFIXES, Parts};
use super::names::{KeyTable, Target};
use crate::StateDict;

mod convert;

/// The modules of an adapter file.
#[derive(Clone, Debug)]
pub struct AdapterFile {
    modules: IndexMap<String, Module>,
    unknown: Vec<String>,
    source: Arc<str>,
}

#[derive(Clone, Debug)]
struct Module {
    weight: Option<Arc<Adapter>>,
    bias: Option<Arc<Adapter>>,
    tensors: usize,
}

/// What of a file found no place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unmatched {
    /// Module or tensor names, in file order.
    pub names: Vec<String>,
    /// Number of modules in the file that did find a place.
    pub matched: usize,
}

impl AdapterFile {
    /// Sorts a file's tensors by module. Nothing is read yet but single numbers; names that belong to no adapter are kept
    /// for [`AdapterFile::unmatched`].
    pub fn new(dict: &StateDict) -> Self {
        let dict = convert::to_common_layout(dict);
        let source: Arc<str> = dict.source().into();
        let mut parts: IndexMap<String, (Parts, usize)> = IndexMap::new();
        let mut unknown = Vec::new();
        for (name, weight) in dict.iter() {
            match split_name(name) {
                Some((module, suffix)) => {
                    let (parts, tensors) = parts.entry(module.to_owned()).or_default();
                    parts.insert(suffix, weight.clone());
                    *tensors += 1;
                }
                None => unknown.push(name.to_owned()),
            }
        }
        let modules = parts
            .into_iter()
            .map(|(name, (parts, tensors))| {
                let adapter = |kind, alpha, dora_scale| {
                    Arc::new(Adapter {
                        source: source.clone(),
                        module: name.clone(),
                        kind,
                        alpha,
                        dora_scale,
                    })
                };
                let weight = parts.weight_kind().map(|kind| adapter(kind, parts.alpha(), parts.dora_scale()));
                let bias = parts.bias_kind().map(|kind| adapter(kind, None, None));
                (name.clone(), Module { weight, bias, tensors })
            })
            .collect();
        Self { modules, unknown, source }
    }

    /// File name for messages.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Number of modules.
    pub fn len(&self) -> usize {
        self.modules.len()
    }

    /// Whether the file has no module.
    pub fn is_empty(&self) -> bool {
        self.modules.is_empty()
    }

    /// What the file changes in a component, by parameter.
    pub fn patches(&self, table: &KeyTable) -> Vec<(Target, Arc<Adapter>)> {
        let mut found: IndexMap<(String, Option<super::Slice>), (Target, Arc<Adapter>)> = IndexMap::new();
        for (name, module) in &self.modules {
            let Some(target) = table.find(name) else { continue };
            let bias = module.bias.clone().and_then(|adapter| Some((target.bias()?, adapter)));
            let weight = module.weight.clone().map(|adapter| (target.clone(), adapter));
            for (target, adapter) in weight.into_iter().chain(bias) {
                // Two names of one parameter in one file: the later one counts.
                found.insert((target.tensor.clone(), target.slice), (target, adapter));
            }
        }
        found.into_values().collect()
    }

    /// The names that none of the tables knows, and incomplete modules.
    pub fn unmatched(&self, tables: &[&KeyTable]) -> Unmatched {
        let mut out = Unmatched { names: self.unknown.clone(), matched: 0 };
        for (name, module) in &self.modules {
            let useful = module.weight.is_some() || module.bias.is_some();
            if useful && tables.iter().any(|t| t.find(name).is_some()) {
                out.matched += 1;
            } else {
                out.names.push(name.clone());
            }
        }
        out
    }

    /// Number of the file's tensors whose modules one of the tables knows.
    pub fn loaded_tensors(&self, tables: &[&KeyTable]) -> usize {
        let known = |name: &str| tables.iter().any(|t| t.find(name).is_some());
        self.modules.iter().filter(|(name, _)| known(name)).map(|(_, m)| m.tensors).sum()
    }
}

/// PEFT's name of `dora_scale`, in its variants.
const MAGNITUDES: [&str; 3] =
    [".lora_magnitude_vector.default.weight", ".lora_magnitude_vector.weight", ".lora_magnitude_vector"];

/// Module and what follows it; the longest suffix that fits.
fn split_name(name: &str) -> Option<(&str, &'static str)> {
    let pairs = LORA_PAIRS.iter().flat_map(|(up, down)| [*up, *down]);
    let plain = pairs.chain(OTHER_SUFFIXES).filter_map(|s| Some((name.strip_suffix(s)?, s)));
    let magnitudes = MAGNITUDES.iter().filter_map(|s| Some((name.strip_suffix(s)?, ".dora_scale")));
    plain.chain(magnitudes).min_by_key(|(module, _)| module.len()).filter(|(module, _)| !module.is_empty())
}
