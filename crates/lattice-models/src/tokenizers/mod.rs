//! Text to token ids, as the text encoders were trained on it.
//!
//! A [`Tokenizer`] turns plain text into ids without start, end or padding; weights, chunks and templates belong to
//! the crate above. The public vocabularies are embedded compressed and parsed on first use ([`Vocabulary::tokenizer`]);
//! others are read from files the user supplies ([`HuggingFace`], [`SentencePiece`]).

mod assets;
mod bpe;
mod byt5;
mod byte_level;
mod clip;
mod hugging_face;
mod sentencepiece;
mod special;
mod unicode;
mod wordpiece;

use std::sync::{Arc, LazyLock};

pub use byt5::ByT5;
pub use byte_level::ByteLevelBpe;
pub use clip::ClipBpe;
pub use hugging_face::HuggingFace;
pub use sentencepiece::SentencePiece;
pub use wordpiece::WordPiece;

/// Why a vocabulary could not be read or a text not be encoded.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The vocabulary or model file is malformed.
    #[error("tokenizer {name}: {reason}")]
    Vocabulary {
        /// Which vocabulary or file.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A tokenizer refused a text.
    #[error("tokenizer {name} cannot encode the text: {reason}")]
    Text {
        /// Which tokenizer.
        name: String,
        /// What it said.
        reason: String,
    },
}

impl TokenizerError {
    fn vocabulary(name: &str, reason: impl Into<String>) -> Self {
        Self::Vocabulary { name: name.to_owned(), reason: reason.into() }
    }
}

/// Turns text into token ids.
pub trait Tokenizer: Send + Sync {
    /// Ids of `text`, without start, end and padding tokens.
    ///
    /// # Errors
    /// If the tokenizer has no way to encode the text.
    fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError>;
}

/// The vocabularies that come with the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Vocabulary {
    /// CLIP's byte-pair encoding (Radford et al. 2021), 49408 ids; all OpenAI and `OpenCLIP` text towers.
    Clip,
    /// T5 v1.1 (Raffel et al. 2020), `SentencePiece` unigram, 32100 ids.
    T5,
    /// Pile-T5, the Llama 2 `SentencePiece` model, 32000 ids.
    PileT5,
    /// Qwen 2.5, byte-level byte-pair encoding, 151665 ids.
    Qwen25,
    /// The Chinese RoBERTa WordPiece vocabulary of HunyuanDiT's CLIP, 47020 ids.
    HunyuanDitBert,
    /// ByT5 (Xue et al. 2022): UTF-8 bytes.
    ByT5,
}

impl Vocabulary {
    /// The tokenizer, built on first use and shared afterwards.
    pub fn tokenizer(self) -> Arc<dyn Tokenizer> {
        static CLIP: LazyLock<Arc<ClipBpe>> = LazyLock::new(|| built_in(assets::clip()));
        static T5: LazyLock<Arc<HuggingFace>> = LazyLock::new(|| built_in(assets::t5()));
        static PILE_T5: LazyLock<Arc<SentencePiece>> = LazyLock::new(|| built_in(assets::pile_t5()));
        static QWEN25: LazyLock<Arc<ByteLevelBpe>> = LazyLock::new(|| built_in(assets::qwen25()));
        static BERT: LazyLock<Arc<WordPiece>> = LazyLock::new(|| built_in(assets::hunyuan_dit_bert()));
        match self {
            Self::Clip => CLIP.clone(),
            Self::T5 => T5.clone(),
            Self::PileT5 => PILE_T5.clone(),
            Self::Qwen25 => QWEN25.clone(),
            Self::HunyuanDitBert => BERT.clone(),
            Self::ByT5 => Arc::new(ByT5),
        }
    }
}

/// Embedded vocabularies are part of the program: one that does not parse is a build error, caught by the tests.
fn built_in<T>(built: Result<T, TokenizerError>) -> Arc<T> {
    Arc::new(built.expect("embedded vocabulary"))
}
