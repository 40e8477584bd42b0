//! Vision towers: CLIP (Radford et al. 2021) and SigLIP (Zhai et al. 2023).

use candle_core::{Result, Tensor, bail};
use lattice_kernels::nn::{Conv2d, Conv2dConfig, LayerNorm, Linear};
use lattice_kernels::ops;
use lattice_weights::{Scope, StateDict, Weight};

use crate::Hints;
use crate::clip_layer::{ClipActivation, ClipLayer, EPS};
use crate::error::{Built, ModelError};
use crate::layers::ScopeExt;
use crate::text::vision_from_openclip;

/// Heads of all published towers.
const HEADS: usize = 16;

/// Mean and deviation of the channels of training pictures, which towers want taken out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ColorStatistics {
    /// Means of red, green and blue in 0..1.
    pub mean: [f32; 3],
    /// Deviations.
    pub deviation: [f32; 3],
}

/// CLIP's.
pub const CLIP_COLORS: ColorStatistics = ColorStatistics {
    mean: [0.48145466, 0.4578275, 0.40821073],
    deviation: [0.26862954, 0.26130258, 0.27577711],
};

/// SigLIP's.
pub const SIGLIP_COLORS: ColorStatistics = ColorStatistics { mean: [0.5; 3], deviation: [0.5; 3] };

/// Structure of a vision tower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VisionConfig {
    /// Width of the states.
    pub width: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Side of the picture in pixels.
    pub image_size: usize,
    /// Whether a class token stands first (CLIP); without it, it is a SigLIP tower.
    pub class_token: bool,
    /// Activation.
    pub activation: ClipActivation,
}

impl VisionConfig {
    fn read(scope: &Scope<'_>, hints: &Hints) -> Built<Self> {
        let embeddings = scope.at("embeddings");
        let patch = embeddings.shape("patch_embedding.weight", 4)?;
        let (width, side) = (patch[0], patch[2]);
        let class_token = embeddings.has("class_embedding");
        let positions = embeddings.shape("position_embedding.weight", 2)?[0];
        let cells = positions - usize::from(class_token).min(positions);
        let grid = cells.isqrt();
        if grid == 0 || grid * grid != cells {
            let name = embeddings.full_name("position_embedding.weight");
            return Err(scope.invalid(format!("`{name}`: {positions} positions make no square")));
        }
        let layers = scope.at("encoder").at("layers").count();
        let activation = ClipActivation::hinted(hints).unwrap_or(match (class_token, layers) {
            (false, _) => ClipActivation::GeluTanh,
            // L is the original, with 24 blocks; H and bigG are OpenCLIP's.
            (true, ..=24) => ClipActivation::QuickGelu,
            (true, _) => ClipActivation::Gelu,
        });
        let heads = hints.count("num_attention_heads").unwrap_or(HEADS);
        if heads == 0 || !width.is_multiple_of(heads) {
            return Err(scope.invalid(format!("a vision tower {width} wide cannot have {heads} heads")));
        }
        Ok(Self { width, layers, heads, patch: side, image_size: grid * side, class_token, activation })
    }
}

/// What a vision tower makes of pictures.
#[derive(Clone, Debug)]
pub struct VisionOutput {
    /// States after the last block, [B, tokens, width]; final-normed for SigLIP.
    pub last: Tensor,
    /// Output of each block, [B, tokens, width].
    pub layers: Vec<Tensor>,
    /// The final-normed class token through the projection, [B, width]; for SigLIP all final-normed tokens.
    pub embeds: Tensor,
}

/// A vision tower under Hugging Face names.
#[derive(Debug)]
pub struct ClipVision {
    config: VisionConfig,
    patch_embedding: Conv2d,
    class_embedding: Option<Weight>,
    position_embedding: Weight,
    pre_layernorm: Option<LayerNorm>,
    layers: Vec<ClipLayer>,
    post_layernorm: LayerNorm,
    visual_projection: Option<Linear>,
    weights: StateDict,
}

impl ClipVision {
    /// Recognises a vision tower.
    ///
    /// # Errors
    /// If it is none that is known, or broken.
    pub fn load(dict: &StateDict) -> std::result::Result<Self, ModelError> {
        let renamed;
        let weights = dict.clone();
        let dict = if dict.contains("transformer.resblocks.0.ln_1.weight") && dict.contains("conv1.weight") {
            renamed = vision_from_openclip(&dict.root())?;
            &renamed
        } else {
            dict
        };
        let (root, scope) = (dict.root(), dict.root().at("vision_model"));
        let config = VisionConfig::read(&scope, &Hints::of(dict).component("vision"))?;
        let (embeddings, width) = (scope.at("embeddings"), config.width);
        let patch = embeddings.at("patch_embedding");
        let shape = [width, 3, config.patch, config.patch];
        let bias = if patch.has("bias") { Some(patch.tensor("bias", &[width])?) } else { None };
        let layers = scope.at("encoder").at("layers");
        let grid = config.image_size / config.patch;
        let positions = grid * grid + usize::from(config.class_token);
        // The published name has this spelling.
        let pre = scope.at("pre_layrnorm");
        let projection = root.at("visual_projection");
        Ok(Self {
            patch_embedding: Conv2d::new(
                patch.tensor("weight", &shape)?,
                bias,
                Conv2dConfig::padded(0).stride(config.patch),
            )?,
            class_embedding: if config.class_token {
                Some(embeddings.tensor("class_embedding", &[width])?)
            } else {
                None
            },
            position_embedding: embeddings.tensor("position_embedding.weight", &[positions, width])?,
            pre_layernorm: if pre.has("weight") { Some(pre.layer_norm(width, EPS)?) } else { None },
            layers: (0..config.layers).map(|i| ClipLayer::new(&layers.at(i), width)).collect::<Built<_>>()?,
            post_layernorm: scope.at("post_layernorm").layer_norm(width, EPS)?,
            visual_projection: if projection.has("weight") {
                Some(projection.linear_no_bias(width, projection.shape("weight", 2)?[0])?)
            } else {
                None
            },
            config,
            weights,
        })
    }

    /// The weights under the names that they have in their file, without prefix.
    pub fn weights(&self) -> &StateDict {
        &self.weights
    }

    /// The structure.
    pub fn config(&self) -> &VisionConfig {
        &self.config
    }

    /// How pictures are normalised for it.
    pub fn colors(&self) -> &'static ColorStatistics {
        if self.config.class_token { &CLIP_COLORS } else { &SIGLIP_COLORS }
    }

    /// Encodes normalised pictures [B, 3, S, S], S being the picture size of the structure.
    pub fn encode(&self, pixels: &Tensor) -> Result<VisionOutput> {
        let (batch, channels, height, width) = pixels.dims4()?;
        let size = self.config.image_size;
        if (channels, height, width) != (3, size, size) {
            bail!(
                "a picture of shape {:?} cannot be encoded, 3 channels of {size} by {size} are needed",
                pixels.dims()
            )
        }
        let device = pixels.device();
        let mut h = ops::to_tokens(&self.patch_embedding.forward(pixels)?)?;
        if let Some(class) = &self.class_embedding {
            let class = class.to_tensor(device)?.reshape((1, 1, self.config.width))?;
            h = Tensor::cat(&[class.broadcast_as((batch, 1, self.config.width))?.contiguous()?, h], 1)?;
        }
        h = h.broadcast_add(&self.position_embedding.to_tensor(device)?)?;
        if let Some(norm) = &self.pre_layernorm {
            h = norm.forward(&h)?;
        }
        let mut layers = Vec::with_capacity(self.layers.len());
        for layer in &self.layers {
            h = layer.forward(h, self.config.heads, self.config.activation, false)?;
            layers.push(h.clone());
        }
        let (last, pooled) = if self.config.class_token {
            let class = h.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?;
            (h, self.post_layernorm.forward(&class)?)
        } else {
            let normed = self.post_layernorm.forward(&h)?;
            (normed.clone(), normed)
        };
        let embeds = match &self.visual_projection {
            Some(projection) => projection.forward(&pooled)?,
            None => pooled,
        };
        Ok(VisionOutput { last, layers, embeds })
    }
}
