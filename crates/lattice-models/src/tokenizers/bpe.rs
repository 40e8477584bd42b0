//! Byte-pair encoding (Sennrich et al. 2016) over ids: the merge rules, and applying them to one word.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::TokenizerError;

/// The printable stand-ins of GPT-2 for the 256 byte values, in the order of their ids: bytes that print as themselves
/// first, then the others as U+0100, U+0101, ...
pub(super) fn byte_symbols() -> [(u8, char); 256] {
    let printable = |b: &u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let own = (0..=255u8).filter(printable).map(|b| (b, char::from(b)));
    let rest = (0..=255u8).filter(|b| !printable(b)).zip('\u{100}'..);
    let mut table = [(0, '\0'); 256];
    for (slot, entry) in table.iter_mut().zip(own.chain(rest)) {
        *slot = entry;
    }
    table
}

/// Id of each byte value in [`byte_symbols`].
pub(super) fn byte_ids() -> [u32; 256] {
    let mut ids = [0; 256];
    for (id, (byte, _)) in (0..).zip(byte_symbols()) {
        ids[usize::from(byte)] = id;
    }
    ids
}

/// Merge rules: the ids of two neighbours to the id of their union. Ids grow with the rank of the rule, so the smallest
/// id is the rule to apply first.
#[derive(Debug)]
pub(super) struct Merges {
    base: Vec<String>,
    rules: HashMap<(u32, u32), u32>,
}

impl Merges {
    /// Reads a merges file (`left right` per line, by rank, after an optional `#version` line). `base` are the symbols
    /// with the lowest ids; the unions follow them in the order of the rules.
    pub(super) fn parse(name: &str, text: &str, base: Vec<String>) -> Result<Self, TokenizerError> {
        let mut ids: HashMap<String, u32> = base.iter().cloned().zip(0..).collect();
        let mut rules = HashMap::new();
        let lines = text.lines().enumerate().filter(|(_, l)| !l.is_empty() && !l.starts_with("#version"));
        for (number, line) in lines {
            let malformed = || {
                TokenizerError::vocabulary(name, format!("line {}: no merge of known symbols", number + 1))
            };
            let (left, right) = line.split_once(' ').ok_or_else(malformed)?;
            let pair = ids.get(left).zip(ids.get(right)).ok_or_else(malformed)?;
            let union = (base.len() + rules.len()) as u32;
            rules.insert((*pair.0, *pair.1), union);
            ids.insert(format!("{left}{right}"), union);
        }
        Ok(Self { base, rules })
    }

    /// Number of ids: base symbols and unions.
    pub(super) fn len(&self) -> usize {
        self.base.len() + self.rules.len()
    }

    /// Text of every id.
    #[cfg(test)]
    pub(super) fn token_texts(&self) -> Vec<String> {
        let mut texts = self.base.clone();
        let mut rules: Vec<_> = self.rules.iter().collect();
        rules.sort_by_key(|(_, union)| **union);
        for ((left, right), _) in rules {
            texts.push(format!("{}{}", texts[*left as usize], texts[*right as usize]));
        }
        texts
    }

    /// Merges the symbols of one word until no rule applies: always the rule of lowest rank, leftmost first.
    /// A heap keeps this at O(n log n), so that a megabyte without a space is no trap.
    pub(super) fn apply(&self, mut symbols: Vec<u32>, out: &mut Vec<u32>) {
        const NONE: usize = usize::MAX;
        const MERGED: u32 = u32::MAX;
        let n = symbols.len();
        let mut next: Vec<usize> = (1..=n).map(|i| if i == n { NONE } else { i }).collect();
        let mut previous: Vec<usize> = (0..n).map(|i| i.wrapping_sub(1)).collect();
        let rule = |symbols: &[u32], left: usize, right: usize| {
            self.rules.get(&(symbols[left], symbols[right])).copied()
        };
        let mut agenda: BinaryHeap<Reverse<(u32, usize)>> =
            (1..n).filter_map(|i| Some(Reverse((rule(&symbols, i - 1, i)?, i - 1)))).collect();
        while let Some(Reverse((union, left))) = agenda.pop() {
            let right = next[left];
            // Entries whose neighbours have been merged meanwhile no longer hold.
            if symbols[left] == MERGED || right == NONE || rule(&symbols, left, right) != Some(union) {
                continue;
            }
            symbols[left] = union;
            symbols[right] = MERGED;
            next[left] = next[right];
            if next[left] != NONE {
                previous[next[left]] = left;
                agenda.extend(rule(&symbols, left, next[left]).map(|u| Reverse((u, left))));
            }
            if previous[left] != NONE {
                let before = previous[left];
                agenda.extend(rule(&symbols, before, left).map(|u| Reverse((u, before))));
            }
        }
        out.extend(symbols.into_iter().filter(|&s| s != MERGED));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letters() -> Merges {
        let base = ["a", "b", "c"].map(String::from).to_vec();
        Merges::parse("test", "#version: 0.2\na b\nb c\nab c\na a\n", base).unwrap()
    }

    #[test]
    fn lowest_rank_wins_and_runs_merge_from_the_left() {
        let cases = [
            (vec![0, 1, 2], vec![5]),
            (vec![1, 2, 0], vec![4, 0]),
            (vec![0, 0, 0], vec![6, 0]),
            (vec![0, 0, 1, 2], vec![0, 5]),
            (vec![], vec![]),
        ];
        for (symbols, want) in cases {
            let mut out = Vec::new();
            letters().apply(symbols, &mut out);
            assert_eq!(out, want);
        }
    }

    #[test]
    fn unknown_symbols_are_refused() {
        assert!(Merges::parse("test", "a x\n", vec!["a".into()]).is_err());
        assert!(Merges::parse("test", "ab\n", vec!["a".into()]).is_err());
    }

    #[test]
    fn every_byte_has_its_own_symbol() {
        let mut ids = byte_ids();
        ids.sort_unstable();
        assert!(ids.iter().copied().eq(0..256));
        assert_eq!(byte_symbols()[188], (0, '\u{100}'));
    }
}
