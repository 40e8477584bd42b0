//! Filling chunks of a fixed length with groups of tokens.

use super::{Chunk, Token, WeightedToken};

/// Shorter groups move to the next chunk rather than being cut.
const MAX_KEPT_TOGETHER: usize = 8;

/// Frame of an encoder's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkLayout {
    /// First token of every chunk.
    pub start: Option<u32>,
    /// Token after the last one of every chunk.
    pub end: Option<u32>,
    /// Fills up.
    pub pad: u32,
    /// Length that chunks are filled to and cut at; None: one chunk as long as it takes.
    pub max_length: Option<usize>,
    /// Whether every chunk is padded to `max_length`.
    pub pad_to_max: bool,
    /// Length that the last chunk is padded to at least.
    pub min_length: usize,
}

/// Padding that a prompt asks for beyond its encoder's layout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Padding {
    /// Pads put behind the last chunk's end in any case.
    pub min_padding: usize,
    /// Instead of the layout's `min_length`.
    pub min_length: Option<usize>,
}

impl ChunkLayout {
    /// The layout for an encoder whose table holds more (LongCLIP) or fewer positions than usual.
    #[must_use]
    pub fn with_max_length(self, positions: usize) -> Self {
        Self { max_length: Some(positions), ..self }
    }

    /// Chunks of the groups, at least one.
    pub(super) fn chunks(&self, groups: Vec<Chunk>, padding: Padding) -> Vec<Chunk> {
        let frame = usize::from(self.start.is_some()) + usize::from(self.end.is_some());
        // A chunk must hold at least one token between start and end, or nothing would ever fit.
        let limit = self.max_length.map_or(usize::MAX, |n| n.max(frame + 1));
        let capacity = limit - usize::from(self.end.is_some());
        let mut chunks = Vec::new();
        let mut chunk = self.begin();
        for group in groups {
            let kept_together = group.len() < MAX_KEPT_TOGETHER;
            let mut rest = group.as_slice();
            while rest.len() > capacity - chunk.len() {
                let room = capacity - chunk.len();
                let is_empty = chunk.len() == usize::from(self.start.is_some());
                if kept_together && !is_empty {
                    self.finish(&mut chunk);
                    if self.pad_to_max {
                        self.pad(&mut chunk, limit);
                    }
                } else {
                    let (fitting, left) = rest.split_at(room);
                    chunk.extend_from_slice(fitting);
                    rest = left;
                    self.finish(&mut chunk);
                }
                chunks.push(std::mem::replace(&mut chunk, self.begin()));
            }
            chunk.extend_from_slice(rest);
        }
        self.finish(&mut chunk);
        let padded = chunk.len().saturating_add(padding.min_padding);
        self.pad(&mut chunk, padded);
        if self.pad_to_max {
            self.pad(&mut chunk, limit);
        }
        self.pad(&mut chunk, padding.min_length.unwrap_or(self.min_length));
        chunks.push(chunk);
        chunks
    }

    /// The chunk of an empty prompt of this length: start, end and padding as far as the encoder has them.
    pub fn empty_chunk(&self, length: usize) -> Chunk {
        let mut chunk = self.begin();
        self.finish(&mut chunk);
        self.pad(&mut chunk, length);
        chunk
    }

    /// The padding token.
    pub(super) fn pad_token(&self) -> WeightedToken {
        neutral(self.pad)
    }

    fn begin(&self) -> Chunk {
        self.start.into_iter().map(neutral).collect()
    }

    fn finish(&self, chunk: &mut Chunk) {
        chunk.extend(self.end.map(neutral));
    }

    fn pad(&self, chunk: &mut Chunk, length: usize) {
        if chunk.len() < length {
            chunk.resize(length, self.pad_token());
        }
    }
}

fn neutral(id: u32) -> WeightedToken {
    WeightedToken { token: Token::Id(id), weight: 1.0 }
}
