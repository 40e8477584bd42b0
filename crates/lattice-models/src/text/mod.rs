//! Text encoders: token ids (or embedding vectors in their place) to states.

mod clip;
mod llama_cpp;
mod openclip;
mod t5;

use std::sync::Arc;

use candle_core::{Result, Tensor};

pub use clip::{ClipConfig, ClipText};

pub use crate::clip_layer::ClipActivation;
pub use llama_cpp::from_llama_cpp;
pub(crate) use openclip::blocks as openclip_blocks;
pub use openclip::{from_openclip, is_openclip, to_openclip, vision_from_openclip};
pub use t5::{T5Config, T5Encoder};

/// One position of a prompt.
#[derive(Clone, Debug)]
pub enum Token {
    /// A row of the encoder's table.
    Id(u32),
    /// A vector that stands for a row (textual inversion), as wide as the table.
    Vector(Arc<[f32]>),
}

impl Token {
    /// The id, if it is one.
    pub fn id(&self) -> Option<u32> {
        match self {
            Self::Id(id) => Some(*id),
            Self::Vector(_) => None,
        }
    }
}

/// What to encode: sequences of one length, and which of their positions count.
#[derive(Clone, Debug, Default)]
pub struct TextInput {
    /// Equally long sequences.
    pub tokens: Vec<Vec<Token>>,
    /// For each position whether it may be attended to; absent: all may.
    pub mask: Option<Vec<Vec<bool>>>,
}

impl TextInput {
    /// Sequences of ids without a mask.
    pub fn from_ids(ids: &[Vec<u32>]) -> Self {
        Self {
            tokens: ids.iter().map(|row| row.iter().map(|&id| Token::Id(id)).collect()).collect(),
            mask: None,
        }
    }

    /// (sequences, length of each).
    ///
    /// # Errors
    /// If there is none, or lengths differ, or the mask has another shape.
    pub fn size(&self) -> Result<(usize, usize)> {
        let Some(length) = self.tokens.first().map(Vec::len) else { candle_core::bail!("no text to encode") };
        if length == 0 || self.tokens.iter().any(|row| row.len() != length) {
            candle_core::bail!("texts to encode together must have the same number of tokens, at least one")
        }
        if let Some(mask) = &self.mask
            && (mask.len() != self.tokens.len() || mask.iter().any(|row| row.len() != length))
        {
            candle_core::bail!("the mask must have one entry for each token")
        }
        Ok((self.tokens.len(), length))
    }
}

/// Which states to return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextOptions {
    /// The block whose output is returned, counted from the end: 1 is the last, 2 the last but one. A count beyond the
    /// encoder's depth means the last.
    pub layer: usize,
    /// Whether the final norm is applied to it.
    pub final_norm: bool,
}

impl Default for TextOptions {
    fn default() -> Self {
        Self { layer: 1, final_norm: true }
    }
}

/// Encoded text.
#[derive(Clone, Debug)]
pub struct TextOutput {
    /// [B, tokens, width].
    pub states: Tensor,
    /// The final-normed last state at the first end token, [B, width] (CLIP).
    pub pooled: Option<Tensor>,
    /// `pooled` through the projection, if the file has one, [B, projection width].
    pub projected: Option<Tensor>,
}

/// A network from tokens to states.
pub trait TextEncoder: Send + Sync {
    /// Width of the states.
    fn width(&self) -> usize;

    /// Width of the vectors that can stand in place of an id.
    fn embedding_width(&self) -> usize {
        self.width()
    }

    /// Encodes sequences.
    ///
    /// # Errors
    /// If a token is outside the table, a vector has another width, or a sequence is longer than the network allows.
    fn encode(&self, input: &TextInput, options: TextOptions) -> Result<TextOutput>;
}

/// Rows of a table for all tokens, [B, tokens, width], vectors standing for themselves.
fn embed_tokens(table: &lattice_kernels::nn::Embedding, input: &TextInput) -> Result<Tensor> {
    let (batch, length) = input.size()?;
    let width = table.width();
    let ids: Vec<u32> = input.tokens.iter().flatten().map(|t| t.id().unwrap_or(0)).collect();
    let rows = table.forward(&ids, &candle_core::Device::Cpu)?;
    let has_vectors = input.tokens.iter().flatten().any(|t| t.id().is_none());
    if !has_vectors {
        return rows.reshape((batch, length, width));
    }
    let mut values = rows.flatten_all()?.to_vec1::<f32>()?;
    for (row, token) in values.chunks_exact_mut(width.max(1)).zip(input.tokens.iter().flatten()) {
        if let Token::Vector(vector) = token {
            if vector.len() != width {
                candle_core::bail!(
                    "an embedding {} wide cannot stand in a text encoder {width} wide",
                    vector.len()
                )
            }
            row.copy_from_slice(vector);
        }
    }
    Tensor::from_vec(values, (batch, length, width), &candle_core::Device::Cpu)
}
