//! Byte-pair segmentation by piece scores.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap};

use super::{PieceKind, Pieces};

const NONE: usize = usize::MAX;

/// A stretch of the text between its neighbours.
struct Symbol {
    start: usize,
    end: usize,
    previous: usize,
    next: usize,
    /// A user-defined symbol, which is never merged.
    frozen: bool,
}

/// Two neighbours whose union is a piece. The best score goes first, then the leftmost.
struct Candidate {
    score: f32,
    left: usize,
    right: usize,
    length: usize,
}

impl Candidate {
    fn rank(&self) -> (Reverse<usize>, f32) {
        (Reverse(self.left), self.score)
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Candidate {}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        let ((left, score), (other_left, other_score)) = (self.rank(), other.rank());
        score.total_cmp(&other_score).then(left.cmp(&other_left))
    }
}

/// Pieces of a normalised text; None where a character has no piece.
pub(super) fn segment<'a>(pieces: &Pieces, text: &'a str) -> Vec<(&'a str, Option<u32>)> {
    let mut symbols = split(pieces, text);
    let mut agenda = BinaryHeap::new();
    // Unions that are only stepping stones (unused pieces) are taken apart again at the end.
    let mut halves: HashMap<&str, usize> = HashMap::new();
    let mut offer = |symbols: &[Symbol], left: usize, right: usize, agenda: &mut BinaryHeap<Candidate>| {
        if left == NONE || right == NONE || symbols[left].frozen || symbols[right].frozen {
            return;
        }
        let union = &text[symbols[left].start..symbols[right].end];
        let Some(&id) = pieces.by_text.get(union) else { return };
        let piece = pieces.piece(id);
        agenda.push(Candidate { score: piece.score, left, right, length: union.len() });
        if piece.kind == PieceKind::Unused {
            halves.insert(union, symbols[left].end - symbols[left].start);
        }
    };
    for right in 1..symbols.len() {
        offer(&symbols, right - 1, right, &mut agenda);
    }
    while let Some(Candidate { left, right, length, .. }) = agenda.pop() {
        // Outdated if either side has been merged away or has grown.
        let (l, r) = (&symbols[left], &symbols[right]);
        if l.start == l.end || r.start == r.end || r.end - l.start != length || l.next != right {
            continue;
        }
        let next = r.next;
        symbols[left].end = r.end;
        symbols[left].next = next;
        symbols[right].start = symbols[right].end;
        if next != NONE {
            symbols[next].previous = left;
        }
        offer(&symbols, symbols[left].previous, left, &mut agenda);
        offer(&symbols, left, next, &mut agenda);
    }
    let mut segments = Vec::new();
    for symbol in symbols.iter().filter(|s| s.start < s.end) {
        let mut stack = vec![&text[symbol.start..symbol.end]];
        while let Some(part) = stack.pop() {
            let id = pieces.by_text.get(part).copied();
            let unused = id.is_some_and(|id| pieces.piece(id).kind == PieceKind::Unused);
            match halves.get(part) {
                Some(&at) if unused => stack.extend([&part[at..], &part[..at]]),
                _ => segments.push((part, id)),
            }
        }
    }
    segments
}

/// Characters and user-defined symbols.
fn split(pieces: &Pieces, text: &str) -> Vec<Symbol> {
    let mut symbols: Vec<Symbol> = Vec::new();
    let mut start = 0;
    while let Some(c) = text[start..].chars().next() {
        let user = pieces.user_defined_prefix(&text[start..]);
        let end = start + user.unwrap_or(c.len_utf8());
        let index = symbols.len();
        let previous = index.wrapping_sub(1);
        symbols.push(Symbol { start, end, previous, next: index + 1, frozen: user.is_some() });
        start = end;
    }
    if let Some(last) = symbols.last_mut() {
        last.next = NONE;
    }
    symbols
}
