//! Weights on encoder outputs: every weighted row is moved away from (or towards) the row of the empty prompt.

use candle_core::{DType, Result, Tensor};

use super::{Chunk, ChunkLayout};

/// What a text encoder gives for a batch of chunks.
#[derive(Clone, Debug)]
pub struct EncoderOutput {
    /// One row per token, [chunks, tokens, width].
    pub hidden: Tensor,
    /// Pooled vectors, [chunks, width], from encoders that have them.
    pub pooled: Option<Tensor>,
    /// Which tokens are text, [chunks, tokens], from encoders that pass their mask on.
    pub mask: Option<Tensor>,
}

/// Encodes chunks and applies their weights: `z' = (z - e) w + e`, where e is the row of the empty prompt at the same
/// position. Chunks are joined on the token axis; pooled output is the first chunk's, whatever the weights; masks are
/// joined like the rows.
///
/// `encode` gets all chunks, padded by `layout` to one length, and is called once. The empty prompt is among them only
/// if some weight is not 1 (or there is no chunk at all).
///
/// Result: hidden [1, tokens, width], pooled [1, width], mask [1, tokens].
///
/// # Errors
/// Whatever `encode` fails with, or if its output has not one row per token.
pub fn encode_weighted(
    chunks: &[Chunk],
    layout: &ChunkLayout,
    encode: impl FnOnce(&[Chunk]) -> Result<EncoderOutput>,
) -> Result<EncoderOutput> {
    let length = chunks.iter().map(Vec::len).max().unwrap_or(0);
    let mut batch: Vec<Chunk> = chunks.to_vec();
    for chunk in &mut batch {
        chunk.resize(length, layout.pad_token());
    }
    let weighted = chunks.iter().flatten().any(|t| t.weight != 1.0);
    if weighted || chunks.is_empty() {
        batch.push(layout.empty_chunk(length));
    }
    let output = encode(&batch)?;
    let sections = chunks.len().max(1);
    let hidden = apply_weights(&output.hidden, &batch[..sections], weighted)?;
    let join = |t: &Tensor| t.narrow(0, 0, sections)?.flatten(0, 1)?.unsqueeze(0);
    Ok(EncoderOutput {
        hidden: join(&hidden)?,
        pooled: output.pooled.map(|p| p.narrow(0, 0, 1)).transpose()?,
        mask: output.mask.as_ref().map(join).transpose()?,
    })
}

/// `hidden` [chunks (+ 1 for the empty prompt), tokens, width]; result without the empty prompt.
fn apply_weights(hidden: &Tensor, chunks: &[Chunk], weighted: bool) -> Result<Tensor> {
    let (rows, tokens, _) = hidden.dims3()?;
    if rows < chunks.len() + usize::from(weighted) || chunks.iter().any(|c| c.len() > tokens) {
        candle_core::bail!("the text encoder gave {rows} x {tokens} rows for {} chunks", chunks.len())
    }
    let sections = hidden.narrow(0, 0, chunks.len())?;
    if !weighted {
        return Ok(sections);
    }
    let dtype = hidden.dtype();
    let weight = |chunk: &Chunk, i: usize| chunk.get(i).map_or(1.0, |t| t.weight as f32);
    let weights: Vec<f32> = chunks.iter().flat_map(|c| (0..tokens).map(move |i| weight(c, i))).collect();
    let neutral: Vec<u8> = weights.iter().map(|&w| u8::from(w == 1.0)).collect();
    let shape = (chunks.len(), tokens, 1);
    let weights = Tensor::from_vec(weights, shape, hidden.device())?;
    let neutral = Tensor::from_vec(neutral, shape, hidden.device())?;
    let empty = hidden.narrow(0, rows - 1, 1)?.to_dtype(DType::F32)?;
    let plain = sections.to_dtype(DType::F32)?;
    let moved = plain.broadcast_sub(&empty)?.broadcast_mul(&weights)?.broadcast_add(&empty)?;
    // Weight 1 leaves a row exactly as it is, rounding included.
    neutral.broadcast_as(plain.shape())?.where_cond(&plain, &moved)?.to_dtype(dtype)
}
