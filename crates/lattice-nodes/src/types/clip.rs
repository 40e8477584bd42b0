//! Text encoders with the way each wants its prompts.

use std::sync::Arc;

use candle_core::Tensor;
use lattice_diffusion::prompt::{
    Chunk, EmbeddingSource, EncoderOutput, Padding, PromptEncoding, encode_weighted, layouts,
};
use lattice_models::detect::{TextEncoderKind, TextPart};
use lattice_models::tokenizers::Vocabulary;
use lattice_models::{TextInput, TextOptions};

use crate::node::GraphType;
use crate::services::Embeddings;
use crate::{Error, Result};

/// One text encoder.
#[derive(Clone)]
pub struct ClipEncoder {
    /// Network and weights.
    pub part: TextPart,
    /// Tokenizer and chunk layout.
    pub prompts: PromptEncoding,
}

impl ClipEncoder {
    fn new(part: TextPart) -> Self {
        let layout = match part.kind {
            TextEncoderKind::ClipL => layouts::CLIP_L,
            TextEncoderKind::ClipG => layouts::CLIP_G,
            _ => layouts::CLIP_H,
        };
        Self { part, prompts: PromptEncoding::weighted(Vocabulary::Clip.tokenizer(), layout) }
    }
}

/// The text encoders of one model family. Weights are shared, so a copy costs nothing.
#[derive(Clone)]
pub struct Clip {
    encoders: Arc<[ClipEncoder]>,
    /// Hidden layer counted from the end; None: the family's.
    layer: Option<usize>,
    /// Padding beyond the layout's.
    pub padding: Padding,
    embeddings: Option<Arc<Embeddings>>,
}

impl GraphType for Clip {
    const NAME: &'static str = "CLIP";
}

/// A prompt cut up for each encoder, in their order.
pub type PromptChunks = Vec<Vec<Chunk>>;

/// An encoded prompt.
#[derive(Clone, Debug)]
pub struct EncodedPrompt {
    /// [1, tokens, width].
    pub states: Tensor,
    /// [1, width].
    pub pooled: Option<Tensor>,
}

impl Clip {
    /// Of the encoders of one checkpoint, or of several files.
    ///
    /// # Errors
    /// If the encoders belong to no family together.
    pub fn new(mut parts: Vec<TextPart>, embeddings: Option<Arc<Embeddings>>) -> Result<Self> {
        parts.sort_by_key(|part| part.kind == TextEncoderKind::ClipG);
        let kinds: Vec<_> = parts.iter().map(|part| part.kind).collect();
        match kinds.as_slice() {
            [_] | [TextEncoderKind::ClipL, TextEncoderKind::ClipG] => {}
            _ => {
                let names: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
                return Err(Error::value(format!(
                    "no model reads its prompts through {} together",
                    names.join(" and ")
                )));
            }
        }
        let encoders = parts.into_iter().map(ClipEncoder::new).collect();
        Ok(Self { encoders, layer: None, padding: Padding::default(), embeddings })
    }

    /// The encoders, in the order in which their states are joined.
    pub fn encoders(&self) -> &[ClipEncoder] {
        &self.encoders
    }

    /// The same encoders over other weights (patched ones).
    #[must_use]
    pub fn with_encoders(&self, encoders: Vec<ClipEncoder>) -> Self {
        Self { encoders: encoders.into(), ..self.clone() }
    }

    /// With the hidden layer taken that is the `layer`-th from the end: 1 is the last ("clip skip" 2 is 2).
    #[must_use]
    pub fn with_layer(&self, layer: usize) -> Self {
        Self { layer: Some(layer), ..self.clone() }
    }

    /// Cuts a prompt up for each encoder. `text` says what an encoder reads.
    ///
    /// # Errors
    /// If an embedding that it names is unusable.
    pub fn tokenize<'a>(&self, text: impl Fn(TextEncoderKind) -> &'a str) -> Result<PromptChunks> {
        let chunks = self.encoders.iter().map(|encoder| {
            let kind = encoder.part.kind;
            let source =
                self.embeddings.as_ref().map(|e| e.of(kind.name(), encoder.part.encoder.embedding_width()));
            let source = source.as_ref().map(|source| source as &dyn EmbeddingSource);
            encoder.prompts.tokenize(text(kind), source, self.padding).map_err(Error::other)
        });
        chunks.collect()
    }

    /// Encodes one prompt for all encoders.
    ///
    /// # Errors
    /// As [`Self::tokenize`] and [`Self::encode`].
    pub fn encode_text(&self, text: &str) -> Result<EncodedPrompt> {
        self.encode(&self.tokenize(|_| text)?)
    }

    /// Encodes tokens: states of several encoders are joined on the feature axis, cut to the shorter; the pooled vector
    /// is that of the last encoder.
    ///
    /// # Errors
    /// If a token is outside an encoder's table, or a sequence too long for it.
    pub fn encode(&self, chunks: &PromptChunks) -> Result<EncodedPrompt> {
        let outputs =
            self.encoders.iter().zip(chunks).map(|(encoder, chunks)| self.encode_with(encoder, chunks));
        let outputs = outputs.collect::<candle_core::Result<Vec<_>>>()?;
        let states: Vec<_> = outputs.iter().map(|o| o.hidden.clone()).collect();
        let tokens = states.iter().map(|s| s.dim(1)).collect::<candle_core::Result<Vec<_>>>()?;
        let shortest = tokens.into_iter().min().unwrap_or(0);
        let cut = states.iter().map(|s| s.narrow(1, 0, shortest)).collect::<candle_core::Result<Vec<_>>>()?;
        let pooled = outputs.into_iter().next_back().and_then(|o| o.pooled);
        Ok(EncodedPrompt { states: Tensor::cat(&cut, 2)?, pooled })
    }

    fn encode_with(&self, encoder: &ClipEncoder, chunks: &[Chunk]) -> candle_core::Result<EncoderOutput> {
        let options = self.options(encoder.part.kind);
        encode_weighted(chunks, &encoder.prompts.layout, |batch| {
            let tokens = batch.iter().map(|chunk| chunk.iter().map(|t| t.token.clone()).collect()).collect();
            let output = encoder.part.encoder.encode(&TextInput { tokens, mask: None }, options)?;
            Ok(EncoderOutput {
                hidden: output.states,
                pooled: output.projected.or(output.pooled),
                mask: None,
            })
        })
    }

    /// Which states the family reads: SD1 the last layer and SD2 the one before, both normed; SDXL and its refiner the
    /// one before the last as it is.
    fn options(&self, kind: TextEncoderKind) -> TextOptions {
        let sdxl = self.encoders.iter().any(|encoder| encoder.part.kind == TextEncoderKind::ClipG);
        let usual = if sdxl || kind == TextEncoderKind::ClipH { 2 } else { 1 };
        TextOptions { layer: self.layer.unwrap_or(usual), final_norm: !sdxl }
    }

    /// Fills up the encoder's shorter prompts with empty ones, so that all have as many chunks.
    pub fn equalize(&self, chunks: &mut PromptChunks) -> Result<()> {
        let empty = self.tokenize(|_| "")?;
        let most = chunks.iter().map(Vec::len).max().unwrap_or(0);
        for (chunks, empty) in chunks.iter_mut().zip(empty) {
            while chunks.len() < most && !empty.is_empty() {
                chunks.extend(empty.iter().cloned());
            }
        }
        Ok(())
    }
}
