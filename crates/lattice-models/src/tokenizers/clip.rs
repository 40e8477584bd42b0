//! CLIP's tokenizer (Radford et al. 2021): lower-cased text, byte-level byte-pair encoding with an end-of-word mark.

use super::bpe::{Merges, byte_ids, byte_symbols};
use super::special::{Piece, Special, split};
use super::unicode::{basic_clean, is_letter, is_number};
use super::{Tokenizer, TokenizerError};

const CONTRACTIONS: [&str; 7] = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"];

/// The byte-pair encoding of all CLIP text towers.
#[derive(Debug)]
pub struct ClipBpe {
    merges: Merges,
    byte_ids: [u32; 256],
    specials: [Special; 2],
}

impl ClipBpe {
    /// From the published merges file. Ids: 256 bytes, 256 bytes that end a word, the unions in order, start and end.
    ///
    /// # Errors
    /// If a line is no merge of symbols known by then.
    pub fn from_merges(text: &str) -> Result<Self, TokenizerError> {
        let bytes = byte_symbols().map(|(_, c)| c.to_string());
        let last = bytes.clone().map(|s| s + "</w>");
        let merges = Merges::parse("CLIP", text, [bytes, last].concat())?;
        let start = merges.len() as u32;
        let specials = [Special::new("<|startoftext|>", start), Special::new("<|endoftext|>", start + 1)];
        Ok(Self { merges, byte_ids: byte_ids(), specials })
    }

    fn encode_text(&self, text: &str, ids: &mut Vec<u32>) {
        for word in basic_clean(text.chars()).split_whitespace() {
            let word = word.to_lowercase();
            let mut rest = word.as_str();
            while let Some((token, after)) = self.next_match(rest) {
                rest = after;
                match token {
                    Match::Special(id) => ids.push(id),
                    Match::Word(word) => self.encode_word(word, ids),
                }
            }
        }
    }

    fn encode_word(&self, word: &str, ids: &mut Vec<u32>) {
        let mut symbols: Vec<u32> = word.bytes().map(|b| self.byte_ids[usize::from(b)]).collect();
        if let Some(last) = symbols.last_mut() {
            *last += 256;
        }
        self.merges.apply(symbols, ids);
    }

    /// The next match of CLIP's word pattern at the start of a text without white space: a special token, a
    /// contraction, a run of letters, one number character, or a run of anything else.
    fn next_match<'a>(&self, text: &'a str) -> Option<(Match<'a>, &'a str)> {
        let first = text.chars().next()?;
        if first == '<' {
            for special in &self.specials {
                if let Some(length) = prefix_ignoring_case(text, &special.text) {
                    // Only the plain spelling is the token itself; others are words like any other.
                    let (matched, after) = text.split_at(length);
                    let plain = matched == special.text;
                    return Some((
                        if plain { Match::Special(special.id) } else { Match::Word(matched) },
                        after,
                    ));
                }
            }
        }
        let contraction = (first == '\'')
            .then(|| CONTRACTIONS.iter().find_map(|c| prefix_ignoring_case(text, c)))
            .flatten();
        let run = |inside: &dyn Fn(char) -> bool| text.find(|c| !inside(c)).unwrap_or(text.len());
        let length = match contraction {
            Some(length) => length,
            None if is_letter(first) => run(&is_letter),
            None if is_number(first) => first.len_utf8(),
            None => run(&|c| !is_letter(c) && !is_number(c)),
        };
        let (word, after) = text.split_at(length);
        Some((Match::Word(word), after))
    }
}

enum Match<'a> {
    Special(u32),
    Word(&'a str),
}

/// Length of the part of `text` (lower case) that equals `pattern` (lower-case ASCII) up to simple case folding. The
/// one lower-case letter that folds into ASCII is the long s.
fn prefix_ignoring_case(text: &str, pattern: &str) -> Option<usize> {
    let mut chars = text.chars();
    for wanted in pattern.chars() {
        let found = chars.next()?;
        if found != wanted && !(found == 'ſ' && wanted == 's') {
            return None;
        }
    }
    Some(text.len() - chars.as_str().len())
}

impl Tokenizer for ClipBpe {
    fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::new();
        for piece in split(text, &self.specials) {
            match piece {
                Piece::Special(id) => ids.push(id),
                Piece::Text(text) => self.encode_text(text, &mut ids),
            }
        }
        Ok(ids)
    }
}

#[cfg(test)]
impl ClipBpe {
    pub(super) fn token_texts(&self) -> Vec<String> {
        let specials = self.specials.iter().map(|s| s.text.clone());
        self.merges.token_texts().into_iter().chain(specials).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::tokenizers::Vocabulary;

    #[test]
    fn published_examples() {
        let encode = |text: &str| Vocabulary::Clip.tokenizer().encode(text).unwrap();
        assert_eq!(encode("a photo of a cat"), [320, 1125, 539, 320, 2368]);
        assert_eq!(encode(" A  PHOTO\nof a cat "), [320, 1125, 539, 320, 2368]);
        assert_eq!(encode("<|endoftext|>"), [49407]);
        assert!(encode("").is_empty());
    }

    #[test]
    fn a_megabyte_without_a_space_is_encoded() {
        let ids = Vocabulary::Clip.tokenizer().encode(&"a".repeat(1 << 20)).unwrap();
        assert!(!ids.is_empty());
    }
}
