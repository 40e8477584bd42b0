//! `SentencePiece` models (Kudo & Richardson 2018): normalisation, then byte-pair or unigram segmentation.

mod bpe;
mod model;
mod normalizer;
mod unigram;

use std::collections::HashMap;

use self::model::{Algorithm, Model, Piece, PieceKind};
use self::normalizer::Normalizer;
use super::{Tokenizer, TokenizerError};

/// The white-space mark.
const SPACE_MARK: char = '\u{2581}';

/// A `SentencePiece` model file.
#[derive(Debug)]
pub struct SentencePiece {
    pieces: Pieces,
    normalizer: Normalizer,
    algorithm: Algorithm,
    unknown: u32,
    /// Ids of the 256 byte pieces, for models that spell unknown characters in bytes.
    byte_ids: Option<Box<[u32; 256]>>,
}

/// Pieces with lookups by text.
#[derive(Debug)]
struct Pieces {
    list: Vec<Piece>,
    /// Pieces that text can consist of.
    by_text: HashMap<Box<str>, u32>,
    /// The same ids, sorted by text, for searching all pieces that begin a text.
    sorted: Vec<u32>,
    has_user_defined: bool,
}

impl SentencePiece {
    /// From the bytes of a `.model` file; `name` is for messages.
    ///
    /// # Errors
    /// If the file is no `SentencePiece` model of type BPE or unigram.
    pub fn from_model(name: &str, bytes: &[u8]) -> Result<Self, TokenizerError> {
        let fail = |reason: String| TokenizerError::vocabulary(name, reason);
        let model = Model::parse(bytes).map_err(fail)?;
        let of_kind = |kind: PieceKind| model.pieces.iter().zip(0u32..).filter(move |(p, _)| p.kind == kind);
        let unknown = of_kind(PieceKind::Unknown).next().map(|(_, id)| id);
        let unknown = unknown.ok_or_else(|| fail("there is no piece for unknown characters".into()))?;
        let byte_ids = if model.byte_fallback {
            let mut ids = Box::new([unknown; 256]);
            for (piece, id) in of_kind(PieceKind::Byte) {
                let value = piece.text.strip_prefix("<0x").and_then(|t| t.strip_suffix('>'));
                let value = value.and_then(|t| u8::from_str_radix(t, 16).ok());
                let value = value.ok_or_else(|| fail(format!("byte piece {:?}", piece.text)))?;
                ids[usize::from(value)] = id;
            }
            Some(ids)
        } else {
            None
        };
        let pieces = Pieces::new(model.pieces);
        let normalizer = Normalizer::new(model.normalizer).map_err(fail)?;
        Ok(Self { pieces, normalizer, algorithm: model.algorithm, unknown, byte_ids })
    }
}

impl Tokenizer for SentencePiece {
    fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let text = self.normalizer.normalize(text, &self.pieces);
        let segments = match self.algorithm {
            Algorithm::Bpe => bpe::segment(&self.pieces, &text),
            Algorithm::Unigram => unigram::segment(&self.pieces, &text),
        };
        let mut ids = Vec::with_capacity(segments.len());
        let mut after_unknown = false;
        for (text, id) in segments {
            match (id, &self.byte_ids) {
                (Some(id), _) => ids.push(id),
                (None, Some(bytes)) => ids.extend(text.bytes().map(|b| bytes[usize::from(b)])),
                // A run of unknown characters is one unknown token.
                (None, None) if after_unknown => {}
                (None, None) => ids.push(self.unknown),
            }
            after_unknown = id.is_none();
        }
        Ok(ids)
    }
}

impl Pieces {
    fn new(pieces: Vec<Piece>) -> Self {
        let is_text = |p: &Piece| {
            matches!(p.kind, PieceKind::Normal | PieceKind::UserDefined | PieceKind::Unused)
                && !p.text.is_empty()
        };
        let mut by_text = HashMap::with_capacity(pieces.len());
        for (piece, id) in pieces.iter().zip(0u32..).filter(|(p, _)| is_text(p)) {
            by_text.entry(Box::from(piece.text.as_str())).or_insert(id);
        }
        let mut sorted: Vec<u32> = by_text.values().copied().collect();
        sorted.sort_unstable_by(|&a, &b| pieces[a as usize].text.cmp(&pieces[b as usize].text));
        let has_user_defined = pieces.iter().any(|p| p.kind == PieceKind::UserDefined);
        Self { list: pieces, by_text, sorted, has_user_defined }
    }

    fn piece(&self, id: u32) -> &Piece {
        &self.list[id as usize]
    }

    /// Ids of all pieces that `text` begins with, shortest first.
    fn prefixes_of<'a>(&'a self, text: &'a str) -> impl Iterator<Item = u32> + 'a {
        let mut range = &self.sorted[..];
        text.bytes()
            .enumerate()
            .map_while(move |(depth, byte)| {
                // All pieces of the range agree on the first `depth` bytes; those that end there sort first.
                let at = |id: u32| self.piece(id).text.as_bytes().get(depth).copied();
                let start = range.partition_point(|&id| at(id) < Some(byte));
                let end = range.partition_point(|&id| at(id) <= Some(byte));
                range = &range[start..end];
                let first = *range.first()?;
                Some((self.piece(first).text.len() == depth + 1).then_some(first))
            })
            .flatten()
    }

    /// Length in bytes of the longest user-defined symbol at the start of `text`: those are never normalised or merged.
    fn user_defined_prefix(&self, text: &str) -> Option<usize> {
        if !self.has_user_defined {
            return None;
        }
        let symbols = self.prefixes_of(text).filter(|&id| self.piece(id).kind == PieceKind::UserDefined);
        symbols.last().map(|id| self.piece(id).text.len())
    }
}

#[cfg(test)]
mod tests;
