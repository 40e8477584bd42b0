//! Tokenizers described by a `tokenizer.json`.

use super::{Tokenizer, TokenizerError};

/// A tokenizer read from a `tokenizer.json` (T5, Llama 3, Gemma, ...), run by the library that defines the format.
#[derive(Debug)]
pub struct HuggingFace {
    name: String,
    inner: tokenizers::Tokenizer,
}

impl HuggingFace {
    /// From the bytes of a `tokenizer.json`; `name` is for messages.
    ///
    /// # Errors
    /// If the file does not describe a tokenizer.
    pub fn from_json(name: &str, json: &[u8]) -> Result<Self, TokenizerError> {
        let inner = tokenizers::Tokenizer::from_bytes(json)
            .map_err(|e| TokenizerError::vocabulary(name, e.to_string()))?;
        Ok(Self { name: name.to_owned(), inner })
    }

    /// Id of a token by its text.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }
}

impl Tokenizer for HuggingFace {
    fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self
            .inner
            .encode_fast(text, false)
            .map_err(|e| TokenizerError::Text { name: self.name.clone(), reason: e.to_string() })?;
        Ok(encoding.get_ids().to_vec())
    }
}
