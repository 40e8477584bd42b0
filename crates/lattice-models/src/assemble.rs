//! The parts of a model in one file again, under the names that published checkpoints of the family have.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use lattice_weights::{StateDict, StoredDType, Weight};
use serde_json::{Map, Value as Json};

use crate::ModelError;
use crate::detect::{Family, ModelSpec, Prediction, Schedule, TextEncoderKind};
use crate::hints::{FAMILY, Hints, SETTINGS};
use crate::text::to_openclip;

/// A checkpoint in the making. Tensors are shared with the parts, but for those whose layout differs in files.
pub struct Assembly {
    family: Family,
    tensors: IndexMap<String, Weight>,
    settings: Map<String, Json>,
}

impl Assembly {
    /// Begins with the diffusion network: its facts and its weights without prefix.
    pub fn new(spec: &ModelSpec, weights: &StateDict) -> Self {
        let mut tensors = prefixed("model.diffusion_model.", weights);
        tensors.extend(sampling_markers(spec));
        tensors.extend(picture_statistics(spec));
        let own = Hints::of(weights).merged();
        let mut settings = Map::new();
        // Single components have no level of their own; what is beside the levels belongs to the whole model.
        for (name, value) in &own {
            if !["unet", "vae", "text"].contains(&name.as_str()) {
                settings.insert(name.clone(), value.clone());
            }
        }
        if !own.is_empty() {
            settings.insert("unet".into(), own.get("unet").cloned().unwrap_or(Json::Object(own)));
        }
        Self { family: spec.family, tensors, settings }
    }

    /// Adds a text encoder with its weights under Hugging Face names.
    ///
    /// # Errors
    /// If its tensors do not fit together.
    pub fn text_encoder(mut self, kind: TextEncoderKind, weights: &StateDict) -> Result<Self, ModelError> {
        let place = text_place(self.family, kind);
        let weights = if place.openclip { &to_openclip(&weights.root())? } else { weights };
        self.tensors.extend(prefixed(&place.prefix, weights));
        let own = Hints::of(weights).component("text").component(kind.name()).merged();
        if !own.is_empty() {
            let texts = self.settings.entry("text").or_insert_with(|| Map::new().into());
            if let Json::Object(texts) = texts {
                texts.insert(kind.name().to_owned(), own.into());
            }
        }
        Ok(self)
    }

    /// Adds the VAE with its weights without prefix.
    #[must_use]
    pub fn vae(mut self, weights: &StateDict) -> Self {
        let prefix = match self.family {
            Family::Flux | Family::FluxSchnell => "vae.",
            _ => "first_stage_model.",
        };
        self.tensors.extend(prefixed(prefix, weights));
        let own = Hints::of(weights).component("vae").merged();
        if !own.is_empty() {
            self.settings.insert("vae".into(), own.into());
        }
        self
    }

    /// Adds the vision tower of models that start from a picture, with its weights under the names of its file.
    #[must_use]
    pub fn vision(mut self, weights: &StateDict) -> Self {
        self.tensors.extend(prefixed("conditioner.embedders.0.open_clip.model.visual.", weights));
        let own = Hints::of(weights).component("vision").merged();
        if !own.is_empty() {
            self.settings.insert("vision".into(), own.into());
        }
        self
    }

    /// The checkpoint, with further metadata; `source` stands for it in messages.
    pub fn finish(self, source: &str, mut metadata: BTreeMap<String, String>) -> StateDict {
        if !self.settings.is_empty() {
            metadata.insert(SETTINGS.into(), Json::Object(self.settings).to_string());
        }
        StateDict::new(source, self.tensors, metadata)
    }
}

/// A text encoder for a file of its own, with further metadata.
pub fn single_text_encoder(
    kind: TextEncoderKind,
    weights: &StateDict,
    mut metadata: BTreeMap<String, String>,
) -> StateDict {
    let own = Hints::of(weights).component("text").component(kind.name()).merged();
    if !own.is_empty() {
        metadata.insert(FAMILY.into(), kind.name().into());
        metadata.insert(SETTINGS.into(), Json::Object(own).to_string());
    }
    weights.clone().with_metadata(metadata)
}

/// A VAE for a file of its own, with further metadata.
pub fn single_vae(weights: &StateDict, mut metadata: BTreeMap<String, String>) -> StateDict {
    let own = Hints::of(weights).component("vae").merged();
    if !own.is_empty() {
        metadata.insert(SETTINGS.into(), Json::Object(own).to_string());
    }
    weights.clone().with_metadata(metadata)
}

fn prefixed(prefix: &str, weights: &StateDict) -> IndexMap<String, Weight> {
    weights.iter().map(|(name, weight)| (format!("{prefix}{name}"), weight.clone())).collect()
}

struct TextPlace {
    prefix: String,
    openclip: bool,
}

/// Where checkpoints of a family keep a text encoder, and whether it has OpenCLIP's names there.
fn text_place(family: Family, kind: TextEncoderKind) -> TextPlace {
    use TextEncoderKind::{ClipG, ClipH, ClipL};
    let published = match (family, kind) {
        (Family::Sd1 | Family::Sd2, ClipL) => Some(("cond_stage_model.transformer.", false)),
        (Family::Sd1 | Family::Sd2, ClipH) => Some(("cond_stage_model.model.", true)),
        (Family::Sdxl | Family::SdxlRefiner, ClipL) => Some(("conditioner.embedders.0.transformer.", false)),
        (Family::Sdxl, ClipG) => Some(("conditioner.embedders.1.model.", true)),
        (Family::SdxlRefiner, ClipG) => Some(("conditioner.embedders.0.model.", true)),
        _ => None,
    };
    match published {
        Some((prefix, openclip)) => TextPlace { prefix: prefix.into(), openclip },
        None => TextPlace { prefix: format!("text_encoders.{}.transformer.", kind.name()), openclip: false },
    }
}

/// Statistics of the pictures that an unCLIP model was trained on.
fn picture_statistics(spec: &ModelSpec) -> Vec<(String, Weight)> {
    let Some(statistics) = &spec.picture_statistics else { return Vec::new() };
    let both = [("data_mean", &statistics.mean), ("data_std", &statistics.deviation)];
    let named = both.map(|(name, values)| {
        let weight = Weight::from_f32(values.clone(), (1, values.len())).ok()?;
        Some((format!("noise_augmentor.{name}"), weight))
    });
    named.into_iter().flatten().collect()
}

/// Tensors beside the network by which SDXL files say that they predict something else than the noise.
fn sampling_markers(spec: &ModelSpec) -> Vec<(String, Weight)> {
    if spec.family != Family::Sdxl {
        return Vec::new();
    }
    let mut markers: Vec<(&str, Vec<f32>)> = Vec::new();
    match (spec.prediction, spec.schedule) {
        (Prediction::V, Schedule::Continuous { sigma_min, sigma_max, .. }) => {
            markers.push(("edm_vpred.sigma_max", vec![sigma_max as f32]));
            markers.push(("edm_vpred.sigma_min", vec![sigma_min as f32]));
        }
        (Prediction::V, schedule) => {
            markers.push(("v_pred", vec![]));
            if matches!(schedule, Schedule::ScaledLinear { zero_terminal_snr: true, .. }) {
                markers.push(("ztsnr", vec![]));
            }
        }
        // Readers ask for their presence; the latent format has the numbers.
        (Prediction::Edm, _) => {
            markers.push(("edm_mean", vec![0.0; 4]));
            markers.push(("edm_std", vec![1.0; 4]));
        }
        _ => {}
    }
    let weight = |values: Vec<f32>| {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Weight::new(StoredDType::F32, values.len(), bytes.into(), None)
    };
    markers.into_iter().filter_map(|(name, values)| Some((name.to_owned(), weight(values).ok()?))).collect()
}
