//! Changes of weights that conditionings carry with them.

use std::sync::{Arc, OnceLock};

use lattice_diffusion::conditioning::{self, ActiveHook, HookSource};
use lattice_diffusion::model::WeightHooks;
use lattice_models::ControlNetwork;
use lattice_models::detect::{Checkpoint, DiffusionPart};
use lattice_models::network::DiffusionNetwork;
use lattice_weights::StateDict;
use lattice_weights::adapters::{Adapter, AdapterFile, AdapterKind, KeyTable, Patch};
use lattice_weights::patcher::{PatchSet, PatchedWeights};

use super::{ClipEncoder, placed};
use crate::node::{FromInput, GraphType, InputKind, Json, Mismatch, Value};
use crate::{Error, Result};

/// Hooks that are passed on together.
#[derive(Clone, Debug, Default)]
pub struct Hooks(pub Vec<conditioning::Hook>);

impl GraphType for Hooks {
    const NAME: &'static str = "HOOKS";
}

/// Strengths of hooks in the course of sampling.
#[derive(Clone, Debug, Default)]
pub struct HookKeyframes(pub Vec<conditioning::Keyframe>);

impl GraphType for HookKeyframes {
    const NAME: &'static str = "HOOK_KEYFRAMES";
}

/// Numbers, as other programs' nodes pass them on: a list, or one alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Floats(pub Vec<f64>);

impl FromInput for Floats {
    fn kind() -> InputKind {
        InputKind::Type("FLOATS".into())
    }

    fn from_input(value: Value) -> std::result::Result<Self, Mismatch> {
        let numbers = value.as_json().and_then(|json| match json {
            Json::Array(list) => list.iter().map(Json::as_f64).collect(),
            one => one.as_f64().map(|number| vec![number]),
        });
        numbers.map(Self).ok_or_else(|| Mismatch::new("FLOATS", &value))
    }
}

/// A part of the sampling, by shares of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TimestepsRange {
    /// Where it starts.
    pub start: f64,
    /// Where it ends.
    pub end: f64,
}

impl GraphType for TimestepsRange {
    const NAME: &'static str = "TIMESTEPS_RANGE";
}

/// What a hook changes weights by.
pub enum HookFile {
    /// An adapter.
    Adapter(Arc<AdapterFile>),
    /// Another checkpoint, towards whose weights they go.
    Checkpoint {
        /// The checkpoint.
        checkpoint: Arc<Checkpoint>,
        /// Its parameters as changes, made once: patched weights are known by the addresses of their changes.
        parameters: OnceLock<Parameters>,
    },
}

/// Changes by parameter, for the diffusion network and for the text encoders by their kinds' names.
pub struct Parameters {
    network: Vec<(String, Arc<Adapter>)>,
    texts: Vec<(&'static str, Vec<(String, Arc<Adapter>)>)>,
}

impl HookFile {
    /// The file behind a hook.
    ///
    /// # Errors
    /// If the hook was made by something else.
    fn of(source: &HookSource) -> Result<&Self> {
        source.downcast_ref().ok_or_else(|| Error::value("a hook that changes no weights"))
    }

    /// Its changes of a diffusion network at a strength.
    fn network_patches(&self, patched: &PatchedWeights, strength: f64) -> PatchSet {
        match self {
            Self::Adapter(file) => PatchSet::new(file.patches(&KeyTable::network(patched.base())), strength),
            Self::Checkpoint { checkpoint, parameters } => {
                let parameters = parameters.get_or_init(|| Parameters::of(checkpoint));
                towards(&parameters.network, patched.base(), strength)
            }
        }
    }

    /// Its changes of a text encoder at a strength; `all` are the names of all encoders.
    fn text_patches(&self, encoder: &ClipEncoder, all: &[&str], strength: f64) -> PatchSet {
        let (kind, base) = (encoder.part.kind.name(), encoder.patched.base());
        match self {
            Self::Adapter(file) => {
                PatchSet::new(file.patches(&KeyTable::text_encoder(kind, all, base)), strength)
            }
            Self::Checkpoint { checkpoint, parameters } => {
                let parameters = parameters.get_or_init(|| Parameters::of(checkpoint));
                let same_kind = parameters.texts.iter().find(|(name, _)| *name == kind);
                same_kind.map(|(_, text)| towards(text, base, strength)).unwrap_or_default()
            }
        }
    }
}

impl Parameters {
    fn of(checkpoint: &Checkpoint) -> Self {
        let changes = |weights: &StateDict| {
            let source: Arc<str> = weights.source().into();
            let change = |(name, weight): (&str, &lattice_weights::Weight)| {
                let kind = AdapterKind::Diff(weight.clone());
                let (source, module) = (source.clone(), name.to_owned());
                let adapter = Adapter { source, module, kind, alpha: None, dora_scale: None };
                (name.to_owned(), Arc::new(adapter))
            };
            weights.iter().map(change).collect()
        };
        let text = |part: &lattice_models::detect::TextPart| (part.kind.name(), changes(&part.weights));
        Self {
            network: changes(&checkpoint.diffusion.weights),
            texts: checkpoint.text_encoders.iter().map(text).collect(),
        }
    }
}

/// Weights (1 - s) w + s p for the parameters p that have a counterpart of their shape.
fn towards(parameters: &[(String, Arc<Adapter>)], base: &StateDict, strength: f64) -> PatchSet {
    let mut set = PatchSet::default();
    for (name, adapter) in parameters {
        let AdapterKind::Diff(weight) = &adapter.kind else { continue };
        if base.get(name).is_some_and(|own| own.dims() == weight.dims()) {
            let patch = Patch {
                adapter: adapter.clone(),
                strength,
                model_strength: 1.0 - strength,
                slice: None,
                swap_halves: false,
            };
            set.push(name.clone(), patch);
        }
    }
    set
}

/// A diffusion network whose weights hooks change, beside what nodes changed before.
pub(super) struct HookedNetwork {
    pub(super) part: Arc<DiffusionPart>,
    pub(super) patched: PatchedWeights,
}

impl WeightHooks for HookedNetwork {
    fn control_network(&self, network: &ControlNetwork) -> candle_core::Result<Option<ControlNetwork>> {
        let weights = self.patched.weights().map_err(candle_core::Error::wrap)?;
        network.on_base(&weights).map_err(candle_core::Error::wrap)
    }

    fn network(&self, hooks: &[ActiveHook]) -> candle_core::Result<Arc<dyn DiffusionNetwork>> {
        let mut patched = self.patched.clone();
        for hook in hooks {
            let file = HookFile::of(&hook.source).map_err(candle_core::Error::wrap)?;
            patched = patched.with(Arc::new(file.network_patches(&self.patched, hook.strength)));
        }
        Ok(placed::diffusion_network(&self.part, &patched))
    }
}

/// Text encoders with their weights changed by hooks at given strengths.
///
/// # Errors
/// If an adapter holds what is no number.
pub(super) fn hooked_encoders(
    encoders: &[ClipEncoder],
    hooks: &[(HookSource, f64)],
) -> Result<Vec<ClipEncoder>> {
    let names: Vec<&str> = encoders.iter().map(|encoder| encoder.part.kind.name()).collect();
    let hooked = encoders.iter().map(|encoder| {
        let mut out = encoder.clone();
        for (source, strength) in hooks.iter().filter(|(_, strength)| *strength != 0.0) {
            let set = HookFile::of(source)?.text_patches(encoder, &names, *strength);
            out = out.with_adapter(Arc::new(set));
        }
        Ok(out)
    });
    hooked.collect()
}
