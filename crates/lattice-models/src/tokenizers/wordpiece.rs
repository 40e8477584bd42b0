//! BERT's tokenizer (Devlin et al. 2019): words without case and accents, split greedily into known pieces.

use std::collections::HashMap;

use unicode_normalization::UnicodeNormalization;

use super::special::{Piece, Special, split};
use super::unicode::{basic_clean, is_accent, is_punctuation};
use super::{Tokenizer, TokenizerError};

/// Longer words are unknown as a whole.
const MAX_WORD_CHARS: usize = 100;

/// A lower-casing WordPiece vocabulary.
#[derive(Debug)]
pub struct WordPiece {
    ids: HashMap<Box<str>, u32>,
    unknown: u32,
    specials: Vec<Special>,
}

impl WordPiece {
    /// From a vocabulary of one piece per line; pieces that go on with a word begin with `##`.
    ///
    /// # Errors
    /// If the vocabulary has no `[UNK]`.
    pub fn from_vocabulary(name: &str, text: &str) -> Result<Self, TokenizerError> {
        let ids: HashMap<Box<str>, u32> = text.lines().map(Box::from).zip(0..).collect();
        let no_unknown = || TokenizerError::vocabulary(name, "the vocabulary has no [UNK]");
        let unknown = *ids.get("[UNK]").ok_or_else(no_unknown)?;
        let names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
        let specials = names.iter().filter_map(|n| Some(Special::new(*n, *ids.get(*n)?))).collect();
        Ok(Self { ids, unknown, specials })
    }

    fn encode_word(&self, word: &str, ids: &mut Vec<u32>) {
        if word.chars().count() > MAX_WORD_CHARS {
            ids.push(self.unknown);
            return;
        }
        let known = ids.len();
        let mut rest = word;
        let mut candidate = String::with_capacity(word.len() + 2);
        while !rest.is_empty() {
            let continues = if rest.len() < word.len() { "##" } else { "" };
            let ends = rest.char_indices().map(|(i, c)| i + c.len_utf8()).rev();
            let longest = ends.into_iter().find_map(|end| {
                candidate.clear();
                candidate.push_str(continues);
                candidate.push_str(&rest[..end]);
                Some((end, *self.ids.get(candidate.as_str())?))
            });
            let Some((end, id)) = longest else {
                ids.truncate(known);
                ids.push(self.unknown);
                return;
            };
            ids.push(id);
            rest = &rest[end..];
        }
    }
}

impl Tokenizer for WordPiece {
    fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::new();
        for piece in split(text, &self.specials) {
            let text = match piece {
                Piece::Special(id) => {
                    ids.push(id);
                    continue;
                }
                Piece::Text(text) => basic_clean(text.chars().flat_map(char::to_lowercase)),
            };
            for word in text.split_whitespace() {
                let plain: String = word.nfd().filter(|c| !is_accent(*c)).collect();
                for part in plain.split_inclusive(is_punctuation) {
                    let mark = part.chars().next_back().filter(|c| is_punctuation(*c));
                    let (before, mark) = part.split_at(part.len() - mark.map_or(0, char::len_utf8));
                    for word in [before, mark].into_iter().filter(|w| !w.is_empty()) {
                        self.encode_word(word, &mut ids);
                    }
                }
            }
        }
        Ok(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greedy_pieces_and_unknown_words() {
        let vocabulary = "[PAD]\n[UNK]\nun\n##able\n##aff\n!\ncafe";
        let tokenizer = WordPiece::from_vocabulary("test", vocabulary).unwrap();
        let encode = |text: &str| tokenizer.encode(text).unwrap();
        assert_eq!(encode("Unaffable! Café unx [UNK]"), [2, 4, 3, 5, 6, 1, 1]);
        assert_eq!(encode(&"a".repeat(200)), [1]);
        assert!(WordPiece::from_vocabulary("test", "a\nb").is_err());
    }
}
