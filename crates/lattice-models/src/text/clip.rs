//! The text tower of CLIP (Radford et al. 2021): L of the original, H and bigG of OpenCLIP.

use candle_core::{Result, Tensor, bail};
use lattice_kernels::nn::{Embedding, LayerNorm, Linear};
use lattice_weights::{Scope, Weight};

use super::{TextEncoder, TextInput, TextOptions, TextOutput, embed_tokens};
use crate::Hints;
use crate::clip_layer::{ClipActivation, ClipLayer, EPS};
use crate::error::Built;
use crate::layers::ScopeExt;

/// End of text in CLIP's vocabulary: the pooled state is taken at the first one.
const END_OF_TEXT: u32 = 49407;
/// Width of a head in all published towers.
const HEAD_WIDTH: usize = 64;

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
        let activation = ClipActivation::hinted(hints).unwrap_or(activation);
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

/// A CLIP text tower under Hugging Face names.
#[derive(Debug)]
pub struct ClipText {
    config: ClipConfig,
    token_embedding: Embedding,
    position_embedding: Weight,
    layers: Vec<ClipLayer>,
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
            layers: (0..config.layers).map(|i| ClipLayer::new(&layers.at(i), width)).collect::<Built<_>>()?,
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
            h = layer.forward(h, self.config.heads, self.config.activation, true)?;
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
