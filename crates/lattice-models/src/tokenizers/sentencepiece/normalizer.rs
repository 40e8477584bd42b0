//! Normalisation by a compiled table of replacements, and the treatment of white space.

use super::model::NormalizerSpec;
use super::{Pieces, SPACE_MARK};

/// Replaces characters as the model was trained on and marks white space.
#[derive(Debug)]
pub(super) struct Normalizer {
    table: Option<CharsMap>,
    add_dummy_prefix: bool,
    remove_extra_whitespaces: bool,
    escape_whitespaces: bool,
}

impl Normalizer {
    pub(super) fn new(spec: NormalizerSpec) -> Result<Self, String> {
        let table = (!spec.charsmap.is_empty()).then(|| CharsMap::parse(&spec.charsmap)).transpose()?;
        Ok(Self {
            table,
            add_dummy_prefix: spec.add_dummy_prefix,
            remove_extra_whitespaces: spec.remove_extra_whitespaces,
            escape_whitespaces: spec.escape_whitespaces,
        })
    }

    pub(super) fn normalize(&self, text: &str, pieces: &Pieces) -> String {
        let space = if self.escape_whitespaces { SPACE_MARK } else { ' ' };
        let mut out = String::with_capacity(text.len() + 3);
        let mut rest = text;
        // Leading spaces are dropped first: a text of nothing else stays empty, without the prefix.
        let mut after_space = self.remove_extra_whitespaces;
        let mut begun = false;
        while !rest.is_empty() {
            let (taken, replacement) = self.replace_prefix(rest, pieces);
            rest = &rest[taken..];
            let replacement = if after_space { replacement.trim_start_matches(' ') } else { replacement };
            if replacement.is_empty() {
                continue;
            }
            if !begun && self.add_dummy_prefix {
                out.push(space);
            }
            begun = true;
            out.extend(replacement.chars().map(|c| if c == ' ' { space } else { c }));
            after_space = self.remove_extra_whitespaces && replacement.ends_with(' ');
        }
        if self.remove_extra_whitespaces {
            out.truncate(out.trim_end_matches(space).len());
        }
        out
    }

    /// How much of the text is replaced by what: a user-defined symbol by itself, the longest entry of the table, or
    /// one character by itself.
    fn replace_prefix<'a>(&'a self, text: &'a str, pieces: &Pieces) -> (usize, &'a str) {
        if let Some(length) = pieces.user_defined_prefix(text) {
            return (length, &text[..length]);
        }
        if let Some(found) = self.table.as_ref().and_then(|t| t.longest_prefix(text)) {
            return found;
        }
        let length = text.chars().next().map_or(0, char::len_utf8);
        (length, &text[..length])
    }
}

/// Replacements in a double-array trie (Aoe 1989, in the layout of Darts-clone) over UTF-8 bytes, and their texts.
#[derive(Debug)]
struct CharsMap {
    units: Vec<u32>,
    replacements: String,
}

impl CharsMap {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let cut = || "the table of replacements is cut short".to_owned();
        let (size, rest) = bytes.split_first_chunk::<4>().ok_or_else(cut)?;
        let size = u32::from_le_bytes(*size) as usize;
        let (trie, texts) = rest.split_at_checked(size).ok_or_else(cut)?;
        let units = trie.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
        let replacements = String::from_utf8(texts.to_vec()).map_err(|e| e.to_string())?;
        Ok(Self { units, replacements })
    }

    /// Length of the longest entry that `text` begins with, and its replacement.
    fn longest_prefix<'a>(&'a self, text: &str) -> Option<(usize, &'a str)> {
        let offset = |unit: u32| (unit >> 10) << ((unit & (1 << 9)) >> 6);
        let mut node = offset(*self.units.first()?) as usize;
        let mut found = None;
        for (i, byte) in text.bytes().enumerate() {
            node ^= usize::from(byte);
            let Some(&unit) = self.units.get(node) else { break };
            if unit & ((1 << 31) | 0xff) != u32::from(byte) {
                break;
            }
            node ^= offset(unit) as usize;
            if (unit >> 8) & 1 == 1
                && let Some(&leaf) = self.units.get(node)
            {
                found = Some((i + 1, leaf & !(1 << 31)));
            }
        }
        let (length, start) = found?;
        let replacement = self.replacements.get(start as usize..)?;
        // An entry that ends inside a character could not be cut off the text.
        let whole = text.is_char_boundary(length);
        whole.then(|| (length, replacement.split('\0').next().unwrap_or_default()))
    }
}
