//! Prompts: the weight grammar, embeddings, chunks of tokens, and weights on encoder outputs.
//!
//! [`PromptEncoding::tokenize`] turns a text into chunks of weighted tokens; a text encoder turns those into rows, with
//! [`encode_weighted`] applying the weights.

mod chunk;
mod embedding;
mod encodings;
mod grammar;
mod number;
mod weighting;

use std::sync::Arc;

use lattice_models::tokenizers::{Tokenizer, TokenizerError};

pub use chunk::{ChunkLayout, Padding};
pub use embedding::{EmbeddingError, EmbeddingSource};
pub use encodings::{Template, layouts, templates};
pub use grammar::{Segment, parse_weights};
pub use lattice_models::text::Token;
pub use weighting::{EncoderOutput, encode_weighted};

/// A token with its weight; 1 is neutral.
#[derive(Clone, Debug)]
pub struct WeightedToken {
    /// An id, or a vector in its place (textual inversion, Gal et al. 2022).
    pub token: Token,
    /// How much of it.
    pub weight: f64,
}

/// What an encoder reads at once.
pub type Chunk = Vec<WeightedToken>;

/// Why a prompt cannot be tokenized.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// `embedding:` with nothing behind it.
    #[error("the prompt says `embedding:` without a name")]
    UnnamedEmbedding,
    /// An embedding is there but cannot be used.
    #[error(transparent)]
    Embedding(#[from] EmbeddingError),
    /// The tokenizer failed.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// How one text encoder wants its prompts.
#[derive(Clone)]
pub struct PromptEncoding {
    /// Text to ids.
    pub tokenizer: Arc<dyn Tokenizer>,
    /// Start, end, padding, lengths.
    pub layout: ChunkLayout,
    /// What is put around the prompt.
    pub template: Option<Template>,
    /// Whether the weight grammar applies. Without it the text is one segment of weight 1, its escapes resolved all
    /// the same.
    pub weighted: bool,
}

impl PromptEncoding {
    /// Chunks of a prompt. Without `embeddings`, `embedding:` is text like any other (but a segment still ends before
    /// it). `padding` overrides the layout's.
    ///
    /// # Errors
    /// If an embedding is unusable or has no name, or the tokenizer fails.
    pub fn tokenize(
        &self,
        prompt: &str,
        embeddings: Option<&dyn EmbeddingSource>,
        padding: Padding,
    ) -> Result<Vec<Chunk>, PromptError> {
        let text = match &self.template {
            Some(template) => template.apply(prompt),
            None => prompt.into(),
        };
        let segments = if self.weighted {
            parse_weights(&text)
        } else {
            vec![Segment { text: grammar::resolve_escapes(&text), weight: 1.0 }]
        };
        let mut groups = Vec::new();
        for segment in &segments {
            self.segment_groups(segment, embeddings, &mut groups)?;
        }
        Ok(self.layout.chunks(groups, padding))
    }

    /// The groups of tokens of one segment: its texts and embeddings in order.
    fn segment_groups(
        &self,
        segment: &Segment,
        embeddings: Option<&dyn EmbeddingSource>,
        groups: &mut Vec<Chunk>,
    ) -> Result<(), PromptError> {
        let weighted = |token| WeightedToken { token, weight: segment.weight };
        for part in embedding::split(&segment.text) {
            let rest = match (part.strip_prefix(embedding::PREFIX), embeddings) {
                (Some(reference), Some(source)) => {
                    let (rows, rest) = embedding::resolve(reference, source)?;
                    groups
                        .extend(rows.map(|rows| rows.into_iter().map(Token::Vector).map(weighted).collect()));
                    if rest.is_empty() {
                        continue;
                    }
                    rest.into()
                }
                _ => std::borrow::Cow::Borrowed(part),
            };
            let ids = self.tokenizer.encode(&rest)?;
            groups.push(ids.into_iter().map(Token::Id).map(weighted).collect());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
