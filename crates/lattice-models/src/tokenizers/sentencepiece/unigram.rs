//! Unigram segmentation (Kudo 2018): the most probable split, by Viterbi's algorithm.

use super::{PieceKind, Pieces};

/// How much less likely than the rarest piece an unknown character is.
const UNKNOWN_PENALTY: f32 = 10.0;

/// Best way to reach a position.
#[derive(Clone, Copy)]
struct Best {
    score: f32,
    start: usize,
    id: Option<u32>,
    reached: bool,
}

/// Pieces of a normalised text; None where a character has no piece.
pub(super) fn segment<'a>(pieces: &Pieces, text: &'a str) -> Vec<(&'a str, Option<u32>)> {
    let normal = pieces.list.iter().filter(|p| p.kind == PieceKind::Normal).map(|p| p.score);
    let (min, max) = normal.fold((f32::INFINITY, f32::NEG_INFINITY), |(a, b), s| (a.min(s), b.max(s)));
    let unknown_score = if min.is_finite() { min - UNKNOWN_PENALTY } else { -UNKNOWN_PENALTY };

    let unreached = Best { score: 0.0, start: 0, id: None, reached: false };
    let mut best = vec![unreached; text.len() + 1];
    best[0].reached = true;
    for (start, c) in text.char_indices() {
        let here = best[start].score;
        let mut single = false;
        let mut reach = |end: usize, score: f32, id: Option<u32>| {
            let score = here + score;
            if !best[end].reached || score > best[end].score {
                best[end] = Best { score, start, id, reached: true };
            }
        };
        for id in pieces.prefixes_of(&text[start..]) {
            let piece = pieces.piece(id);
            let score = match piece.kind {
                PieceKind::Unused => continue,
                // Always preferred to its parts.
                PieceKind::UserDefined => piece.text.chars().count() as f32 * max - 0.1,
                _ => piece.score,
            };
            single |= piece.text.len() == c.len_utf8();
            reach(start + piece.text.len(), score, Some(id));
        }
        if !single {
            reach(start + c.len_utf8(), unknown_score, None);
        }
    }
    let mut segments = Vec::new();
    let mut end = text.len();
    while end > 0 {
        let Best { start, id, .. } = best[end];
        segments.push((&text[start..end], id));
        end = start;
    }
    segments.reverse();
    segments
}
