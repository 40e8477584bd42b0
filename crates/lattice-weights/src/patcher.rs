//! A model is base weights and a list of patch sets, both immutable and shared: cloning and adding copy nothing. Patched tensors are made
//! when the weights are asked for, and kept by what went into them, so that another list costs only what differs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use lattice_kernels::{StoredDType, Weight};
use rayon::prelude::*;

use crate::StateDict;
use crate::adapters::{Adapter, AdapterKind, Patch, PatchError, Target, apply_patches, fused};
use crate::rounding::{encode, seed_of_name, stochastic_fp8};

/// Patches of one source (one adapter file at one strength), by tensor.
#[derive(Clone, Debug, Default)]
pub struct PatchSet {
    patches: HashMap<String, Vec<Patch>>,
}

impl PatchSet {
    /// An adapter file's changes ([`crate::adapters::AdapterFile::patches`]) at a strength.
    pub fn new(changes: impl IntoIterator<Item = (Target, Arc<Adapter>)>, strength: f64) -> Self {
        let mut set = Self::default();
        for (target, adapter) in changes {
            let Target { tensor, slice, swap_halves } = target;
            set.push(tensor, Patch { adapter, strength, model_strength: 1.0, slice, swap_halves });
        }
        set
    }

    /// A share of another model: where `factors` gives (m, s) for a tensor that both models have, it becomes m times this model's
    /// tensor plus s times the other's. Nothing is computed yet.
    pub fn merge(
        model: &PatchedWeights,
        other: &PatchedWeights,
        factors: impl Fn(&str) -> Option<(f64, f64)>,
    ) -> Self {
        let source: Arc<str> = other.base.source().into();
        let mut set = Self::default();
        for (name, weight) in other.base.iter().filter(|(name, _)| model.base.contains(name)) {
            let Some((model_strength, strength)) = factors(name) else { continue };
            if !weight.dtype().is_float() || (model_strength, strength) == (1.0, 0.0) {
                continue;
            }
            let kind = AdapterKind::Parameter { weight: weight.clone(), patches: other.patches_of(name) };
            let adapter = Adapter {
                source: source.clone(),
                module: name.to_owned(),
                kind,
                alpha: None,
                dora_scale: None,
            };
            let adapter = Arc::new(adapter);
            set.push(
                name.to_owned(),
                Patch { adapter, strength, model_strength, slice: None, swap_halves: false },
            );
        }
        set
    }

    /// Factors of a model's own parameters; 1 leaves one as it is. Nothing is computed yet.
    pub fn scale(model: &PatchedWeights, factor: impl Fn(&str) -> f64) -> Self {
        let source: Arc<str> = model.base.source().into();
        let mut set = Self::default();
        for (name, weight) in model.base.iter() {
            let model_strength = factor(name);
            if !weight.dtype().is_float() || model_strength == 1.0 {
                continue;
            }
            // Of strength 0: only the factor counts.
            let kind = AdapterKind::Diff(weight.clone());
            let module = name.to_owned();
            let adapter = Adapter { source: source.clone(), module, kind, alpha: None, dora_scale: None };
            let adapter = Arc::new(adapter);
            let patch = Patch { adapter, strength: 0.0, model_strength, slice: None, swap_halves: false };
            set.push(name.to_owned(), patch);
        }
        set
    }

    /// Adds a change of one tensor.
    pub fn push(&mut self, tensor: String, patch: Patch) {
        self.patches.entry(tensor).or_default().push(patch);
    }

    /// Names of the tensors that are changed.
    pub fn tensors(&self) -> impl Iterator<Item = &str> {
        self.patches.keys().map(String::as_str)
    }
}

/// Base weights with patch sets.
#[derive(Clone, Debug)]
pub struct PatchedWeights {
    base: Arc<StateDict>,
    sets: Vec<Arc<PatchSet>>,
    /// What stands before the tensors' names in the whole model (`diffusion_model.`): stochastic rounding is seeded by full names.
    prefix: Arc<str>,
    cache: Arc<Mutex<Cache>>,
}

impl PatchedWeights {
    /// The plain weights; up to `budget` bytes of patched tensors that are not in the current list are kept.
    pub fn new(base: StateDict, prefix: &str, budget: usize) -> Self {
        let cache = Arc::new(Mutex::new(Cache { budget, ..Cache::default() }));
        Self { base: Arc::new(base), sets: Vec::new(), prefix: prefix.into(), cache }
    }

    /// The unpatched weights.
    pub fn base(&self) -> &StateDict {
        &self.base
    }

    /// The patch sets in the order in which they apply.
    pub fn sets(&self) -> &[Arc<PatchSet>] {
        &self.sets
    }

    /// The same model with one more set at the end.
    #[must_use]
    pub fn with(&self, set: Arc<PatchSet>) -> Self {
        let mut out = self.clone();
        out.sets.push(set);
        out
    }

    /// The patches of a tensor that change something, in the order in which they apply.
    fn patches_of(&self, name: &str) -> Vec<Patch> {
        let patches = self.sets.iter().filter_map(|set| set.patches.get(name)).flatten();
        patches.filter(|patch| patch.changes_something()).cloned().collect()
    }

    /// Whether nothing is patched.
    pub fn is_plain(&self) -> bool {
        self.sets.iter().all(|set| set.patches.is_empty())
    }

    /// Number of tensors that were patched so far, for this model and all that came of it by [`Self::with`].
    pub fn computed(&self) -> usize {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).computed
    }

    /// All weights, patched: those without a patch (or with strength 0 only) are the base's own handles. Tensors are patched
    /// in parallel, each once per combination of patches.
    ///
    /// # Errors
    /// If an adapter holds NaN or infinity.
    pub fn weights(&self) -> Result<StateDict, PatchError> {
        let mut out = (*self.base).clone();
        let mut todo = Vec::new();
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.clock += 1;
        for (name, weight) in self.base.iter() {
            let patches = self.patches_of(name);
            if patches.is_empty() || !weight.dtype().is_float() {
                continue;
            }
            match cache.get(name, &patches) {
                Some(done) => out.insert(name, done),
                None => todo.push((name.to_owned(), weight.clone(), patches)),
            }
        }
        drop(cache);
        let done: Vec<(String, Vec<Patch>, Weight)> = todo
            .into_par_iter()
            .map(|(name, weight, patches)| {
                let patched = patched(&weight, &patches, seed_of_name(&format!("{}{name}", self.prefix)))?;
                Ok((name, patches, patched))
            })
            .collect::<Result<_, PatchError>>()?;
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, patches, weight) in done {
            out.insert(name.clone(), weight.clone());
            cache.insert(name, patches, weight);
        }
        cache.trim();
        Ok(out)
    }
}

impl Patch {
    /// Strength 0 with the weight's own factor 1 changes nothing, whatever the adapter (but for values that are set).
    fn changes_something(&self) -> bool {
        self.strength != 0.0 || self.model_strength != 1.0
    }

    /// Whether two patches give the same result on the same weight.
    fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.adapter, &other.adapter)
            && self.strength.to_bits() == other.strength.to_bits()
            && self.model_strength.to_bits() == other.model_strength.to_bits()
            && self.slice == other.slice
            && self.swap_halves == other.swap_halves
    }
}

/// One weight patched and rounded back to its type. Blocks become halves: requantising would lose the change.
fn patched(weight: &Weight, patches: &[Patch], seed: u32) -> Result<Weight, PatchError> {
    if let Some(bytes) = fused::patch(weight, patches)?
        && let Ok(weight) = Weight::new(weight.dtype(), weight.shape().clone(), bytes, None)
    {
        return Ok(weight);
    }
    let (mut values, shape) = apply_patches(weight.to_f32(), weight.dims(), patches)?;
    let dtype = match weight.dtype() {
        StoredDType::Block(_) => StoredDType::F16,
        dtype => dtype,
    };
    if let Some(scale) = weight.scale().filter(|&s| s != 0.0) {
        for v in &mut values {
            *v /= scale;
        }
    }
    let bytes = stochastic_fp8(&values, dtype, seed).or_else(|| encode(&values, dtype)).unwrap_or_default();
    // Shape and values come from the same place, so the sizes agree; a weight that cannot be built stays as it was.
    Ok(Weight::new(dtype, shape, bytes, weight.scale()).unwrap_or_else(|_| weight.clone()))
}

/// Patched tensors by name and patches. Entries of the current list always stay; others as long as they fit the budget, the longest unused
/// going first.
#[derive(Debug, Default)]
struct Cache {
    entries: HashMap<String, Vec<Entry>>,
    budget: usize,
    clock: u64,
    /// Tensors patched so far.
    computed: usize,
}

#[derive(Debug)]
struct Entry {
    /// Holding the adapters keeps their addresses, which are their identity, from being used again.
    patches: Vec<Patch>,
    weight: Weight,
    used: u64,
}

impl Cache {
    fn get(&mut self, name: &str, patches: &[Patch]) -> Option<Weight> {
        let same = |e: &Entry| {
            e.patches.len() == patches.len() && e.patches.iter().zip(patches).all(|(a, b)| a.same(b))
        };
        let entry = self.entries.get_mut(name)?.iter_mut().find(|e| same(e))?;
        entry.used = self.clock;
        Some(entry.weight.clone())
    }

    fn insert(&mut self, name: String, patches: Vec<Patch>, weight: Weight) {
        self.computed += 1;
        let entry = Entry { patches, weight, used: self.clock };
        self.entries.entry(name).or_default().push(entry);
    }

    fn trim(&mut self) {
        let mut old: Vec<(u64, usize)> = self
            .entries
            .values()
            .flatten()
            .filter(|e| e.used != self.clock)
            .map(|e| (e.used, e.weight.bytes().len()))
            .collect();
        old.sort_unstable_by(|a, b| b.cmp(a));
        let (mut kept, mut oldest) = (0, self.clock);
        for (used, bytes) in old {
            kept += bytes;
            if kept > self.budget {
                break;
            }
            oldest = used;
        }
        self.entries.retain(|_, list| {
            list.retain(|e| e.used >= oldest);
            !list.is_empty()
        });
    }
}
