//! The embedded vocabularies: gzip-compressed public files (origins and licences in `data/tokenizers/README.md`).

use std::io::Read;

use flate2::read::GzDecoder;

use super::{ByteLevelBpe, ClipBpe, HuggingFace, SentencePiece, TokenizerError, WordPiece};

fn inflate(name: &str, compressed: &[u8]) -> Result<Vec<u8>, TokenizerError> {
    let mut bytes = Vec::with_capacity(compressed.len() * 4);
    let read = GzDecoder::new(compressed).read_to_end(&mut bytes);
    read.map_err(|e| TokenizerError::vocabulary(name, e.to_string()))?;
    Ok(bytes)
}

fn inflate_text(name: &str, compressed: &[u8]) -> Result<String, TokenizerError> {
    String::from_utf8(inflate(name, compressed)?).map_err(|e| TokenizerError::vocabulary(name, e.to_string()))
}

macro_rules! data {
    ($file:literal) => {
        include_bytes!(concat!("../../data/tokenizers/", $file))
    };
}

pub(super) fn clip() -> Result<ClipBpe, TokenizerError> {
    ClipBpe::from_merges(&inflate_text("CLIP", data!("clip_merges.txt.gz"))?)
}

pub(super) fn qwen25() -> Result<ByteLevelBpe, TokenizerError> {
    ByteLevelBpe::qwen25(&inflate_text("Qwen2.5", data!("qwen25_merges.txt.gz"))?)
}

pub(super) fn t5() -> Result<HuggingFace, TokenizerError> {
    HuggingFace::from_json("T5", &inflate("T5", data!("t5_tokenizer.json.gz"))?)
}

pub(super) fn pile_t5() -> Result<SentencePiece, TokenizerError> {
    SentencePiece::from_model("Pile-T5", &inflate("Pile-T5", data!("t5_pile_tokenizer.model.gz"))?)
}

pub(super) fn hunyuan_dit_bert() -> Result<WordPiece, TokenizerError> {
    WordPiece::from_vocabulary("BERT", &inflate_text("BERT", data!("bert_hydit_vocab.txt.gz"))?)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// The published vocabularies, which the program itself derives from the merges.
    fn published(compressed: &[u8]) -> HashMap<String, u32> {
        serde_json::from_slice(&inflate("vocabulary", compressed).unwrap()).unwrap()
    }

    #[test]
    fn clip_ids_are_those_of_the_published_vocabulary() {
        let vocabulary = published(data!("clip_vocab.json.gz"));
        let derived = clip().unwrap().token_texts();
        assert_eq!(derived.len(), vocabulary.len());
        for (id, text) in derived.iter().enumerate() {
            assert_eq!(vocabulary.get(text), Some(&(id as u32)), "{text}");
        }
    }

    #[test]
    fn qwen_ids_are_those_of_the_published_vocabulary() {
        let vocabulary = published(data!("qwen25_vocab.json.gz"));
        let derived = qwen25().unwrap().token_texts();
        assert_eq!(derived.len(), vocabulary.len());
        for (id, text) in derived.iter().enumerate() {
            assert_eq!(vocabulary.get(text), Some(&(id as u32)), "{text}");
        }
    }
}
