//! Byte-level byte-pair encoding (Radford et al. 2019) with the pre-tokenizer of Qwen 2.

use unicode_normalization::UnicodeNormalization;

use super::bpe::{Merges, byte_ids, byte_symbols};
use super::special::{Piece, Special, split};
use super::unicode::{is_letter, is_number};
use super::{Tokenizer, TokenizerError};

/// Special tokens of Qwen 2.5 in the order of their ids, which follow the last merge.
const QWEN25_SPECIALS: [&str; 22] = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
];

const CONTRACTIONS: [&str; 7] = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"];

/// A byte-level byte-pair encoding.
#[derive(Debug)]
pub struct ByteLevelBpe {
    merges: Merges,
    byte_ids: [u32; 256],
    specials: Vec<Special>,
}

impl ByteLevelBpe {
    /// Qwen 2.5 from its merges file. Ids: 256 bytes, the unions in order, the special tokens.
    ///
    /// # Errors
    /// If a line is no merge of symbols known by then.
    pub fn qwen25(merges: &str) -> Result<Self, TokenizerError> {
        let bytes = byte_symbols().map(|(_, c)| c.to_string()).to_vec();
        let merges = Merges::parse("Qwen2.5", merges, bytes)?;
        let ids = merges.len() as u32..;
        let specials = QWEN25_SPECIALS.iter().zip(ids).map(|(text, id)| Special::new(*text, id)).collect();
        Ok(Self { merges, byte_ids: byte_ids(), specials })
    }
}

impl Tokenizer for ByteLevelBpe {
    fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let text: String = text.nfc().collect();
        let mut ids = Vec::new();
        for piece in split(&text, &self.specials) {
            match piece {
                Piece::Special(id) => ids.push(id),
                Piece::Text(mut rest) => {
                    while !rest.is_empty() {
                        let (word, after) = rest.split_at(word_length(rest));
                        rest = after;
                        let symbols = word.bytes().map(|b| self.byte_ids[usize::from(b)]).collect();
                        self.merges.apply(symbols, &mut ids);
                    }
                }
            }
        }
        Ok(ids)
    }
}

/// Length in bytes of the next word of a text that is not empty, by Qwen 2's pattern:
/// contraction | \[one other character\] letters | one number | \[space\] symbols and line ends | white space up to its
/// last line end | white space before the last one that precedes a word | white space.
fn word_length(text: &str) -> usize {
    let run = |from: usize, inside: &dyn Fn(char) -> bool| {
        text[from..].find(|c| !inside(c)).map_or(text.len(), |n| from + n)
    };
    let mut chars = text.chars();
    let Some(first) = chars.next() else { return 0 };
    let second = chars.next();
    let is_line_end = |c: char| matches!(c, '\r' | '\n');
    let is_symbol = |c: char| !c.is_whitespace() && !is_letter(c) && !is_number(c);
    if first == '\''
        && let Some(length) = contraction(text)
    {
        return length;
    }
    if is_letter(first) {
        return run(0, &is_letter);
    }
    if is_number(first) {
        return first.len_utf8();
    }
    if !is_line_end(first) && second.is_some_and(is_letter) {
        return run(first.len_utf8(), &is_letter);
    }
    let symbols_from = usize::from(first == ' ');
    let symbols = run(symbols_from, &is_symbol);
    if symbols > symbols_from {
        return run(symbols, &is_line_end);
    }
    let white = run(0, &char::is_whitespace);
    if let Some(last) = text[..white].rfind(is_line_end) {
        return last + 1;
    }
    match text[..white].char_indices().next_back() {
        // The last white-space character before a word belongs to that word, unless it is the only one.
        Some((last, _)) if white < text.len() && last > 0 => last,
        _ => white,
    }
}

/// Length of an English contraction in any case at the start of a text.
fn contraction(text: &str) -> Option<usize> {
    CONTRACTIONS.iter().find_map(|pattern| {
        let mut chars = text.chars();
        // The long s folds to s, the Kelvin sign is not among the letters here.
        let equal = pattern.chars().all(|wanted| {
            chars.next().is_some_and(|c| c.eq_ignore_ascii_case(&wanted) || (c == 'ſ' && wanted == 's'))
        });
        equal.then(|| text.len() - chars.as_str().len())
    })
}

#[cfg(test)]
impl ByteLevelBpe {
    pub(super) fn token_texts(&self) -> Vec<String> {
        self.merges.token_texts()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_follow_the_published_pattern() {
        let words = |mut text: &'static str| {
            let mut words = Vec::new();
            while !text.is_empty() {
                let (word, rest) = text.split_at(word_length(text));
                words.push(word);
                text = rest;
            }
            words
        };
        assert_eq!(words("It's 12 cats,  ok"), ["It", "'s", " ", "1", "2", " cats", ",", " ", " ok"]);
        assert_eq!(words("a \n\n b"), ["a", " \n\n", " b"]);
        assert_eq!(words("(x) !?\n\ny  "), ["(x", ")", " !?\n\n", "y", "  "]);
        assert_eq!(words("\u{a0}\u{a0}猫"), ["\u{a0}", "\u{a0}猫"]);
    }
}
