//! The parts of a file as networks ready to run.

use std::collections::HashMap;
use std::sync::Arc;

use lattice_kernels::StoredDType;
use lattice_weights::StateDict;

use super::facts::{Family, LatentFormat, ModelSpec, Prediction, Schedule};
use super::signature::{self, Network};
use super::{DetectError, stable_diffusion};
use crate::diffusers::{self, Plan, names};
use crate::flux::{Flux, FluxConfig};
use crate::network::DiffusionNetwork;
use crate::sd_unet::{UNet, UnetConfig};
use crate::sd3::{Mmdit, MmditConfig};
use crate::text::{
    ClipActivation, ClipConfig, ClipText, T5Config, T5Encoder, TextEncoder, from_llama_cpp, from_openclip,
    is_openclip,
};
use crate::vae::{AutoencoderKl, Taesd, Vae};
use crate::{ClipVision, Hints, ModelError};

/// A diffusion network with its facts and its weights under the network's own names (what adapters patch).
#[derive(Clone)]
pub struct DiffusionPart {
    /// Facts.
    pub spec: ModelSpec,
    /// Weights without prefix.
    pub weights: StateDict,
    /// The network over these weights.
    pub network: Arc<dyn DiffusionNetwork>,
}

/// Kinds of text encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TextEncoderKind {
    /// CLIP ViT-L/14.
    ClipL,
    /// OpenCLIP ViT-H/14.
    ClipH,
    /// OpenCLIP ViT-bigG/14.
    ClipG,
    /// The encoder of T5 1.1 XXL.
    T5Xxl,
    /// The encoder of UMT5 XXL.
    Umt5Xxl,
}

impl TextEncoderKind {
    /// The name that files and metadata use for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ClipL => "clip_l",
            Self::ClipH => "clip_h",
            Self::ClipG => "clip_g",
            Self::T5Xxl => "t5xxl",
            Self::Umt5Xxl => "umt5xxl",
        }
    }
}

/// A text encoder with its weights under Hugging Face names.
#[derive(Clone)]
pub struct TextPart {
    /// Which.
    pub kind: TextEncoderKind,
    /// Weights without prefix.
    pub weights: StateDict,
    /// The encoder over these weights.
    pub encoder: Arc<dyn TextEncoder>,
}

/// A VAE with its weights.
#[derive(Clone)]
pub struct VaePart {
    /// Weights without prefix.
    pub weights: StateDict,
    /// The autoencoder over these weights.
    pub vae: Arc<dyn Vae>,
}

/// Everything a checkpoint holds.
#[derive(Clone)]
pub struct Checkpoint {
    /// The diffusion network.
    pub diffusion: DiffusionPart,
    /// Text encoders in the order in which the family joins them; empty if the file has none.
    pub text_encoders: Vec<TextPart>,
    /// The VAE, if the file has one.
    pub vae: Option<VaePart>,
    /// The vision tower of models that read pictures, if the file has one.
    pub vision: Option<Arc<ClipVision>>,
}

impl Checkpoint {
    /// Recognises the parts of a single-file checkpoint.
    ///
    /// # Errors
    /// If there is no known diffusion network, or a part is broken; the message names file and tensor.
    pub fn load(dict: &StateDict) -> Result<Self, DetectError> {
        if let Some(parts) = components(dict) {
            let [diffusion, vae, texts @ ..] = &parts;
            let texts: Vec<StateDict> = texts.iter().filter(|d| !d.is_empty()).cloned().collect();
            return Self::from_components(diffusion, &texts, Some(vae).filter(|d| !d.is_empty()));
        }
        let diffusion = DiffusionPart::load(dict)?;
        let mut text_encoders = vec![];
        for (prefix, kind) in TEXT_PREFIXES {
            let weights = dict.extract(prefix);
            if !weights.is_empty() {
                text_encoders.push(TextPart::of_kind(&weights, *kind)?);
            }
        }
        let vae = ["first_stage_model.", "vae."].into_iter().map(|p| dict.extract(p)).find(|d| !d.is_empty());
        let vae = vae.map(|weights| VaePart::load(&weights)).transpose()?;
        let vision = VISION_PREFIXES.iter().map(|p| dict.extract(p)).find(|d| !d.is_empty());
        let vision = vision.map(|weights| ClipVision::load(&weights)).transpose()?.map(Arc::new);
        Ok(Self { diffusion, text_encoders, vae, vision })
    }

    /// Recognises the parts of a diffusers folder, each with the names that it has in its own folder.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn from_components(
        diffusion: &StateDict,
        text_encoders: &[StateDict],
        vae: Option<&StateDict>,
    ) -> Result<Self, DetectError> {
        Ok(Self {
            diffusion: DiffusionPart::load(diffusion)?,
            text_encoders: text_encoders.iter().map(TextPart::load).collect::<Result<_, _>>()?,
            vae: vae.map(VaePart::load).transpose()?,
            vision: None,
        })
    }
}

/// Where checkpoints keep a vision tower: unCLIP models, and those that start from a picture.
const VISION_PREFIXES: [&str; 2] =
    ["embedder.model.visual.", "conditioner.embedders.0.open_clip.model.visual."];

/// The parts of a whole diffusers folder: network, VAE, text encoders (those that there are not are empty).
fn components(dict: &StateDict) -> Option<[StateDict; 5]> {
    let network = ["unet.", "transformer."].into_iter().map(|p| dict.extract(p)).find(|d| {
        d.contains("conv_in.weight") || d.contains("transformer_blocks.0.attn.add_q_proj.weight")
    })?;
    let part = |name: &str| dict.extract(name);
    let texts = [part("text_encoder."), part("text_encoder_2."), part("text_encoder_3.")];
    let [first, second, third] = texts;
    Some([network, part("vae."), first, second, third])
}

/// Where checkpoints keep their text encoders, and which these are.
const TEXT_PREFIXES: &[(&str, TextEncoderKind)] = &[
    ("cond_stage_model.transformer.", TextEncoderKind::ClipL),
    ("cond_stage_model.model.", TextEncoderKind::ClipH),
    ("conditioner.embedders.0.transformer.", TextEncoderKind::ClipL),
    ("conditioner.embedders.0.model.", TextEncoderKind::ClipG),
    ("conditioner.embedders.1.model.", TextEncoderKind::ClipG),
    ("text_encoders.clip_l.transformer.", TextEncoderKind::ClipL),
    ("text_encoders.clip_h.transformer.", TextEncoderKind::ClipH),
    ("text_encoders.clip_g.transformer.", TextEncoderKind::ClipG),
    ("text_encoders.t5xxl.transformer.", TextEncoderKind::T5Xxl),
    ("text_encoders.umt5xxl.transformer.", TextEncoderKind::Umt5Xxl),
];

impl DiffusionPart {
    /// Recognises a diffusion network, alone in a file or in a checkpoint.
    ///
    /// # Errors
    /// If there is none that is known, or it is broken.
    pub fn load(dict: &StateDict) -> Result<Self, DetectError> {
        let prefix = signature::diffusion_prefix(dict);
        // Built from the whole file, so that errors name tensors as they stand in it.
        let scope = match prefix.strip_suffix('.') {
            Some(part) => dict.root().at(part),
            None => dict.root(),
        };
        let network = signature::network(&scope).filter(|_| !signature::is_control(&scope));
        let Some(network) = network else {
            let nearest = signature::nearest(&scope).map(|(network, found, all, missing)| {
                let name = network.name();
                format!(
                    "nearest is {name} with {found} of {all} characteristic tensors; `{missing}` is missing"
                )
            });
            let kind = signature::other_kind(dict).map(|kind| format!("it looks like {kind}"));
            let recognised = [kind, nearest].into_iter().flatten().collect::<Vec<_>>().join("; ");
            return Err(DetectError::Unknown {
                file: dict.source().to_owned(),
                wanted: "diffusion model",
                recognised: (!recognised.is_empty()).then_some(recognised),
            });
        };
        let hints = Hints::of(dict);
        let weights = dict.extract(prefix);
        match network {
            Network::StableDiffusion => {
                let config = UnetConfig::read(&scope, &hints.component("unet"))?;
                let spec = stable_diffusion::spec(&scope, &config, &hints, main_dtype(&weights));
                let network = UNet::new(&scope, config)?;
                Ok(Self { spec, weights, network: Arc::new(network) })
            }
            Network::Sd3 => {
                let config = MmditConfig::read(&scope)?;
                let spec = ModelSpec {
                    family: Family::Sd3,
                    prediction: Prediction::Flow,
                    schedule: Schedule::Flow {
                        shift: hints.number("shift").unwrap_or(3.0),
                        multiplier: 1000.0,
                    },
                    latent_format: LatentFormat::Sd3,
                    in_channels: config.in_channels,
                    out_channels: config.out_channels,
                    context_width: Some(config.context_width),
                    vector_width: Some(config.pooled_width),
                    guidance: false,
                    memory_factor: 1.2,
                    dtype: main_dtype(&weights),
                    picture_statistics: None,
                };
                Ok(Self { spec, network: Arc::new(Mmdit::new(&scope, config)?), weights })
            }
            Network::Flux => {
                let config = FluxConfig::read(&scope)?;
                let (family, schedule) = if config.guidance {
                    (Family::Flux, Schedule::ExponentialFlow { shift: 1.15 })
                } else {
                    (Family::FluxSchnell, Schedule::Flow { shift: 1.0, multiplier: 1.0 })
                };
                let spec = ModelSpec {
                    family,
                    prediction: Prediction::Flow,
                    schedule,
                    latent_format: LatentFormat::Flux,
                    in_channels: config.in_channels,
                    out_channels: config.out_channels,
                    context_width: Some(config.context_width),
                    vector_width: Some(config.vector_width),
                    guidance: config.guidance,
                    memory_factor: 3.1,
                    dtype: main_dtype(&weights),
                    picture_statistics: None,
                };
                Ok(Self { spec, network: Arc::new(Flux::new(&scope, config)?), weights })
            }
            Network::DiffusersUnet => Self::load_converted(&diffusers::unet(names(&weights)), &weights),
            Network::DiffusersFlux => Self::load_converted(&diffusers::flux(names(&weights)), &weights),
            Network::DiffusersSd3 => Self::load_converted(&diffusers::sd3(names(&weights)), &weights),
            other => Err(DetectError::Unsupported {
                file: dict.source().to_owned(),
                network: other.name().to_owned(),
            }),
        }
    }

    /// A network of a diffusers folder. What the conversion makes has single-file names, so this does not come back here.
    fn load_converted(plan: &Plan, weights: &StateDict) -> Result<Self, DetectError> {
        Self::load(&plan.apply(weights)?)
    }

    /// The same network over other weights of the same names and shapes (patched ones).
    ///
    /// # Errors
    /// If the weights do not make the network.
    pub fn with_weights(&self, weights: StateDict) -> Result<Self, DetectError> {
        let loaded = Self::load(&weights)?;
        // Patched values must not change what was recognised.
        Ok(Self { spec: self.spec.clone(), ..loaded })
    }
}

impl TextPart {
    /// Recognises a text encoder that is alone in a file.
    ///
    /// # Errors
    /// If it is none that is known, or broken.
    pub fn load(dict: &StateDict) -> Result<Self, DetectError> {
        if let Some(renamed) = from_llama_cpp(dict) {
            return Self::load(&renamed);
        }
        let root = dict.root();
        if root.has("encoder.block.0.layer.0.SelfAttention.q.weight") {
            let own_positions = T5Config::read(&root)?.own_positions;
            let kind = if own_positions { TextEncoderKind::Umt5Xxl } else { TextEncoderKind::T5Xxl };
            return Self::of_kind(dict, kind);
        }
        let layers = if is_openclip(&root) {
            root.at("transformer").at("resblocks").count()
        } else {
            root.at("text_model").at("encoder").at("layers").count()
        };
        // Depth tells the published towers apart; reduced ones say what they are.
        let family = dict.metadata().get("lattice.family").map(String::as_str);
        let kind = match (family, layers) {
            (_, 0) => {
                return Err(DetectError::Unknown {
                    file: dict.source().to_owned(),
                    wanted: "text encoder",
                    recognised: signature::other_kind(dict).map(|kind| format!("it looks like {kind}")),
                });
            }
            (Some("clip_g" | "openclip_g"), _) | (_, 31..) => TextEncoderKind::ClipG,
            (Some("clip_h" | "openclip_h"), _) | (_, 23..) => TextEncoderKind::ClipH,
            _ => TextEncoderKind::ClipL,
        };
        Self::of_kind(dict, kind)
    }

    /// A text encoder of a kind that is known otherwise (its place in a checkpoint), without prefix.
    pub fn of_kind(dict: &StateDict, kind: TextEncoderKind) -> Result<Self, DetectError> {
        let activation = match kind {
            TextEncoderKind::T5Xxl | TextEncoderKind::Umt5Xxl => {
                let config = T5Config::read(&dict.root())?;
                let encoder = Arc::new(T5Encoder::new(&dict.root(), config)?);
                return Ok(Self { kind, weights: dict.clone(), encoder });
            }
            TextEncoderKind::ClipL => ClipActivation::QuickGelu,
            TextEncoderKind::ClipH | TextEncoderKind::ClipG => ClipActivation::Gelu,
        };
        let hints = Hints::of(dict).component("text").component(kind.name());
        let weights = clip_weights(dict)?;
        let config = ClipConfig::read(&weights.root(), &hints, activation)?;
        let encoder = ClipText::new(&weights.root(), config)?;
        Ok(Self { kind, weights, encoder: Arc::new(encoder) })
    }

    /// The same encoder over other weights of the same names and shapes (patched ones).
    pub fn with_weights(&self, weights: StateDict) -> Result<Self, DetectError> {
        Self::of_kind(&weights, self.kind)
    }
}

/// A CLIP text tower under Hugging Face names, whatever names the file has.
fn clip_weights(dict: &StateDict) -> Result<StateDict, ModelError> {
    let root = dict.root();
    if is_openclip(&root) {
        return from_openclip(&root);
    }
    let mut weights = dict.clone();
    // The oldest checkpoints lack a level of names.
    if root.has("encoder.layers.0.layer_norm1.weight") {
        weights = StateDict::new(dict.source(), indexmap::IndexMap::new(), dict.metadata().clone());
        for (name, weight) in dict.iter() {
            weights.insert(format!("text_model.{name}"), weight.clone());
        }
    }
    // A projection under this name is stored transposed.
    if let Some(projection) = dict.get("text_projection").filter(|w| w.dims().len() == 2) {
        weights.remove("text_projection");
        weights.insert("text_projection.weight", crate::convert::transpose(projection)?);
    }
    Ok(weights)
}

impl VaePart {
    /// Recognises a VAE that is alone in a file.
    ///
    /// # Errors
    /// If it is none that is known, or broken.
    pub fn load(dict: &StateDict) -> Result<Self, DetectError> {
        let root = dict.root();
        if let Some(vae) = taesd(dict)? {
            return Ok(Self { vae: Arc::new(vae), weights: dict.clone() });
        }
        if root.has("decoder.up_blocks.0.resnets.0.norm1.weight") {
            return Self::load(&diffusers::autoencoder_kl(names(dict)).apply(dict)?);
        }
        if !root.has("decoder.conv_in.weight") && !root.has("encoder.conv_in.weight") {
            return Err(DetectError::Unknown {
                file: dict.source().to_owned(),
                wanted: "VAE",
                recognised: signature::other_kind(dict).map(|kind| format!("it looks like {kind}")),
            });
        }
        Ok(Self { vae: Arc::new(AutoencoderKl::new(&root)?), weights: dict.clone() })
    }
}

/// The tiny autoencoder of a file: both halves under their prefixes, or one half under bare indices.
fn taesd(dict: &StateDict) -> Result<Option<Taesd>, DetectError> {
    let root = dict.root();
    let (both_encoder, both_decoder) = (root.at("taesd_encoder"), root.at("taesd_decoder"));
    let encoder = [&both_encoder, &root].into_iter().find(|s| s.has("0.weight") && s.has("1.conv.0.weight"));
    let decoder = [&both_decoder, &root].into_iter().find(|s| s.has("1.weight") && s.has("3.conv.0.weight"));
    if encoder.is_none() && decoder.is_none() {
        return Ok(None);
    }
    let channels = decoder.and_then(|s| s.optional("1.weight")).and_then(|w| w.dims().get(1).copied());
    // The published kinds share a layout; without a word on which it is, that of Stable Diffusion 1.x or Flux.
    let (scale, shift) = if channels == Some(16) { (0.3611, 0.1159) } else { (0.18215, 0.0) };
    let hints = Hints::of(dict);
    let number = |name: &str, default: f64| match dict.get(name) {
        Some(weight) if weight.elem_count() == 1 => f64::from(weight.to_f32()[0]),
        _ => hints.number(name).unwrap_or(default),
    };
    Ok(Some(Taesd::new(encoder, decoder, number("vae_scale", scale), number("vae_shift", shift))?))
}

/// The storage type with most elements.
fn main_dtype(dict: &StateDict) -> StoredDType {
    let mut counts: HashMap<StoredDType, usize> = HashMap::new();
    for (_, weight) in dict.iter() {
        *counts.entry(weight.dtype()).or_default() += weight.elem_count();
    }
    counts.into_iter().max_by_key(|(_, n)| *n).map_or(StoredDType::F32, |(dtype, _)| dtype)
}
