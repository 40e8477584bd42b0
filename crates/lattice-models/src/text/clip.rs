//! The text tower of CLIP (Radford et al. 2021): L of the original, H and bigG of OpenCLIP.

use candle_core::{Result, Tensor, bail};
use lattice_kernels::nn::{Embedding, LayerNorm, Linear};
use lattice_kernels::ops;
use lattice_weights::{Scope, Weight};

use super::{TextEncoder, TextInput, TextOptions, TextOutput, embed_tokens};
use crate::Hints;
use crate::error::Built;
use crate::layers::ScopeExt;

/// End of text in CLIP's vocabulary: the pooled state is taken at the first one.
const END_OF_TEXT: u32 = 49407;
/// Width of a head in all published towers.
const HEAD_WIDTH: usize = 64;
const EPS: f64 = 1e-5;

/// Activation of the feed-forward layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClipActivation {
    /// x * sigmoid(1.702 x), the original's.
    QuickGelu,
    /// Exact GELU, OpenCLIP's.
    Gelu,
}

/// Structure of a text tower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClipConfig {
    /// Width of the states.
    pub width: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Longest sequence.
    pub positions: usize,
    /// Rows of the token table.
    pub vocabulary: usize,
    /// Activation.
    pub activation: ClipActivation,
}

impl ClipConfig {
    /// Reads the structure of the tower below `scope`; `activation` holds unless the metadata names another.
    pub fn read(scope: &Scope<'_>, hints: &Hints, activation: ClipActivation) -> Built<Self> {
        let model = scope.at("text_model");
        let table = model.shape("embeddings.token_embedding.weight", 2)?;
        let (vocabulary, width) = (table[0], table[1]);
        let activation = match hints.text("hidden_act") {
            Some("quick_gelu") => ClipActivation::QuickGelu,
            Some("gelu") => ClipActivation::Gelu,
            _ => activation,
        };
        let heads = hints.count("num_attention_heads").unwrap_or((width / HEAD_WIDTH).max(1));
        if heads == 0 || !width.is_multiple_of(heads) {
            return Err(scope.invalid(format!("a text encoder {width} wide cannot have {heads} heads")));
        }
        Ok(Self {
            width,
            layers: model.at("encoder").at("layers").count(),
            heads,
            positions: model.shape("embeddings.position_embedding.weight", 2)?[0],
            vocabulary,
            activation,
        })
    }
}

#[derive(Debug)]
struct EncoderLayer {
    layer_norm1: LayerNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    layer_norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl EncoderLayer {
    fn new(scope: &Scope<'_>, width: usize) -> Built<Self> {
        let (attention, mlp) = (scope.at("self_attn"), scope.at("mlp"));
        let inner = mlp.shape("fc1.weight", 2)?[0];
        Ok(Self {
            layer_norm1: scope.at("layer_norm1").layer_norm(width, EPS)?,
            q_proj: attention.at("q_proj").linear(width, width)?,
            k_proj: attention.at("k_proj").linear(width, width)?,
            v_proj: attention.at("v_proj").linear(width, width)?,
            out_proj: attention.at("out_proj").linear(width, width)?,
            layer_norm2: scope.at("layer_norm2").layer_norm(width, EPS)?,
            fc1: mlp.at("fc1").linear(width, inner)?,
            fc2: mlp.at("fc2").linear(inner, width)?,
        })
    }

    fn forward(&self, x: Tensor, config: &ClipConfig) -> Result<Tensor> {
        let h = self.layer_norm1.forward(&x)?;
        let (q, k, v) = (self.q_proj.forward(&h)?, self.k_proj.forward(&h)?, self.v_proj.forward(&h)?);
        let scale = 1.0 / ((config.width / config.heads) as f32).sqrt();
        let a = ops::attention(&q, &k, &v, config.heads, scale, None, true)?;
        let x = (x + self.out_proj.forward(&a)?)?;
        let h = self.fc1.forward(&self.layer_norm2.forward(&x)?)?;
        let h = match config.activation {
            ClipActivation::QuickGelu => ops::quick_gelu(&h)?,
            ClipActivation::Gelu => ops::gelu(&h)?,
        };
        x + self.fc2.forward(&h)?
    }
}

/// A CLIP text tower under Hugging Face names.
#[derive(Debug)]
pub struct ClipText {
    config: ClipConfig,
    token_embedding: Embedding,
    position_embedding: Weight,
    layers: Vec<EncoderLayer>,
    final_layer_norm: LayerNorm,
    text_projection: Option<Linear>,
}

impl ClipText {
    /// Builds the tower below `scope` (`text_model...` and perhaps `text_projection.weight`).
    pub fn new(scope: &Scope<'_>, config: ClipConfig) -> Built<Self> {
        let model = scope.at("text_model");
        let (embeddings, layers) = (model.at("embeddings"), model.at("encoder").at("layers"));
        if config.layers == 0 {
            return Err(scope.invalid(format!("no `{}`", layers.full_name(0))));
        }
        let width = config.width;
        let projection = scope.at("text_projection");
        Ok(Self {
            token_embedding: embeddings.at("token_embedding").embedding(config.vocabulary, width)?,
            position_embedding: embeddings.tensor("position_embedding.weight", &[config.positions, width])?,
            layers: (0..config.layers)
                .map(|i| EncoderLayer::new(&layers.at(i), width))
                .collect::<Built<_>>()?,
            final_layer_norm: model.at("final_layer_norm").layer_norm(width, EPS)?,
            text_projection: if projection.has("weight") {
                let outputs = projection.shape("weight", 2)?[0];
                Some(projection.linear_no_bias(width, outputs)?)
            } else {
                None
            },
            config,
        })
    }

    /// The structure.
    pub fn config(&self) -> &ClipConfig {
        &self.config
    }
}

/// Final-normed states at each sequence's first end token; of one without an end token, at its first position.
fn pool(last: &Tensor, input: &TextInput) -> Result<Tensor> {
    let rows = input.tokens.iter().enumerate().map(|(b, row)| {
        let end = row.iter().position(|t| t.id() == Some(END_OF_TEXT)).unwrap_or(0);
        last.narrow(0, b, 1)?.narrow(1, end, 1)?.squeeze(1)
    });
    Tensor::cat(&rows.collect::<Result<Vec<_>>>()?, 0)
}

impl TextEncoder for ClipText {
    fn width(&self) -> usize {
        self.config.width
    }

    fn encode(&self, input: &TextInput, options: TextOptions) -> Result<TextOutput> {
        let length = input.size()?.1;
        if length > self.config.positions {
            bail!("{length} tokens, this text encoder takes {} at a time", self.config.positions)
        }
        if input.mask.is_some() {
            bail!("CLIP text encoders take no mask")
        }
        let positions =
            self.position_embedding.narrow_rows(0, length)?.to_tensor(&candle_core::Device::Cpu)?;
        let mut h = embed_tokens(&self.token_embedding, input)?.broadcast_add(&positions)?;
        let depth = self.layers.len();
        let wanted = if (1..=depth).contains(&options.layer) { depth - options.layer } else { depth - 1 };
        let mut chosen = None;
        for (i, layer) in self.layers.iter().enumerate() {
            h = layer.forward(h, &self.config)?;
            if i == wanted {
                chosen = Some(h.clone());
            }
        }
        let last = self.final_layer_norm.forward(&h)?;
        let states = match chosen {
            Some(states) if wanted + 1 < depth && options.final_norm => {
                self.final_layer_norm.forward(&states)?
            }
            Some(states) if !options.final_norm => states,
            _ => last.clone(),
        };
        let pooled = pool(&last, input)?;
        let projected = self.text_projection.as_ref().map(|p| p.forward(&pooled)).transpose()?;
        Ok(TextOutput { states, pooled: Some(pooled), projected })
    }
}
