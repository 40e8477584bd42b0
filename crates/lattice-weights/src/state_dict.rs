//! Named weights of one file (or part of one).

use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;
use rayon::prelude::*;

use crate::error::{Cause, FileError};
use crate::recode::recode;
use crate::{StoredDType, Weight};

/// Tensors by name in file order, and the file's text metadata. Cloning copies no tensor.
#[derive(Clone, Debug, Default)]
pub struct StateDict {
    tensors: IndexMap<String, Weight>,
    metadata: BTreeMap<String, String>,
    /// Where the tensors come from, for error messages.
    source: Arc<str>,
}

/// A tensor that a network needs and its file lacks.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{file}: tensor `{name}` is missing{}", hint.as_deref().map(|h| format!(" ({h})")).unwrap_or_default())]
pub struct MissingTensor {
    /// File the state dict was read from.
    pub file: String,
    /// Full tensor name.
    pub name: String,
    /// What was found instead, if that helps.
    pub hint: Option<String>,
}

impl From<MissingTensor> for candle_core::Error {
    fn from(e: MissingTensor) -> Self {
        candle_core::Error::wrap(e)
    }
}

impl StateDict {
    /// From named tensors; `source` is the file's name for messages.
    pub fn new(source: &str, tensors: IndexMap<String, Weight>, metadata: BTreeMap<String, String>) -> Self {
        Self { tensors, metadata, source: source.into() }
    }

    /// File name for messages.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The same tensors under another file name for messages.
    #[must_use]
    pub fn with_source(self, source: &str) -> Self {
        Self { source: source.into(), ..self }
    }

    /// Text metadata of the file (`__metadata__` of safetensors).
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there is no tensor.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// The tensor of that full name.
    pub fn get(&self, name: &str) -> Option<&Weight> {
        self.tensors.get(name)
    }

    /// Whether a tensor of that full name exists.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Names and tensors in file order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Weight)> {
        self.tensors.iter().map(|(k, v)| (k.as_str(), v))
    }

    /// Adds or replaces a tensor.
    pub fn insert(&mut self, name: impl Into<String>, weight: Weight) {
        self.tensors.insert(name.into(), weight);
    }

    /// The first floating point tensor that holds NaN or infinity. Reads every tensor up to it.
    pub fn first_not_finite(&self) -> Option<&str> {
        let names: Vec<(&String, &Weight)> =
            self.tensors.iter().filter(|(_, w)| w.dtype().is_float()).collect();
        let odd = |weight: &Weight| {
            let mut values = vec![0f32; weight.elem_count().min(1 << 16)];
            (0..weight.elem_count()).step_by(1 << 16).any(|start| {
                let count = values.len().min(weight.elem_count() - start);
                weight.read_f32(start, &mut values[..count]);
                values[..count].iter().any(|v| !v.is_finite())
            })
        };
        names.into_par_iter().find_first(|(_, weight)| odd(weight)).map(|(name, _)| name.as_str())
    }

    /// Takes a tensor out.
    pub fn remove(&mut self, name: &str) -> Option<Weight> {
        self.tensors.shift_remove(name)
    }

    /// All floating point tensors rounded to one plain type, in memory of their own; those that have it already are shared.
    ///
    /// # Errors
    /// If a type of 8 bits cannot hold a value; names the tensor.
    pub fn stored_as(&self, dtype: StoredDType) -> Result<Self, FileError> {
        let convert = |(name, weight): (&String, &Weight)| {
            if !weight.dtype().is_float() || weight.dtype() == dtype {
                return Ok((name.clone(), weight.clone()));
            }
            let mut bytes = Vec::with_capacity(weight.elem_count() * dtype.size());
            let fail = |cause: Cause| cause.at(&self.source, name);
            recode(weight, dtype, &mut bytes).map_err(|e| fail(Cause::Io(e)))?;
            let made = Weight::new(dtype, weight.shape().clone(), bytes.into(), None);
            Ok((name.clone(), made.map_err(|e| fail(Cause::malformed("tensor", e)))?))
        };
        let tensors: Vec<(String, Weight)> = self
            .tensors
            .iter()
            .collect::<Vec<_>>()
            .into_par_iter()
            .map(convert)
            .collect::<Result<_, FileError>>()?;
        Ok(Self { tensors: tensors.into_iter().collect(), ..self.clone() })
    }

    /// The same tensors with other metadata.
    #[must_use]
    pub fn with_metadata(self, metadata: BTreeMap<String, String>) -> Self {
        Self { metadata, ..self }
    }

    /// The tensors below `prefix`, with the prefix removed.
    #[must_use]
    pub fn extract(&self, prefix: &str) -> Self {
        let tensors = self
            .tensors
            .iter()
            .filter_map(|(k, v)| k.strip_prefix(prefix).map(|k| (k.to_owned(), v.clone())))
            .collect();
        Self { tensors, metadata: self.metadata.clone(), source: self.source.clone() }
    }

    /// The whole dict as a scope.
    pub fn root(&self) -> Scope<'_> {
        Scope { dict: self, prefix: String::new() }
    }
}

/// A prefix in a state dict, as networks walk it: `scope.at("input_blocks").at(0).weight("weight")`.
#[derive(Clone, Debug)]
pub struct Scope<'a> {
    dict: &'a StateDict,
    prefix: String,
}

impl<'a> Scope<'a> {
    /// The scope one name part further down (a dot is put between).
    #[must_use]
    pub fn at(&self, part: impl std::fmt::Display) -> Scope<'a> {
        Scope { dict: self.dict, prefix: self.full_name(part) }
    }

    /// The name of `part` below this scope as it stands in the file.
    pub fn full_name(&self, part: impl std::fmt::Display) -> String {
        if self.prefix.is_empty() { part.to_string() } else { format!("{}.{part}", self.prefix) }
    }

    /// The dict this scope looks into.
    pub fn dict(&self) -> &'a StateDict {
        self.dict
    }

    /// A tensor that must be there.
    pub fn weight(&self, name: &str) -> Result<Weight, MissingTensor> {
        self.optional(name).ok_or_else(|| MissingTensor {
            file: self.dict.source().to_owned(),
            name: self.full_name(name),
            hint: None,
        })
    }

    /// A tensor that may be there.
    pub fn optional(&self, name: &str) -> Option<Weight> {
        self.dict.get(&self.full_name(name)).cloned()
    }

    /// Whether the tensor exists.
    pub fn has(&self, name: &str) -> bool {
        self.dict.contains(&self.full_name(name))
    }

    /// Number of consecutive children 0, 1, 2, ... that have at least one tensor below them.
    pub fn count(&self) -> usize {
        (0..self.dict.len())
            .take_while(|i| {
                let prefix = format!("{}.", self.full_name(i));
                self.dict.tensors.keys().any(|k| k.starts_with(&prefix))
            })
            .count()
    }
}
