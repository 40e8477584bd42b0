//! ByT5 (Xue et al. 2022): every UTF-8 byte is a token.

use super::special::{Piece, Special, split};
use super::{Tokenizer, TokenizerError};

/// Bytes shifted by the three special tokens `<pad>`, `</s>`, `<unk>`.
#[derive(Clone, Copy, Debug)]
pub struct ByT5;

impl Tokenizer for ByT5 {
    fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let specials = ["<pad>", "</s>", "<unk>"];
        let specials: Vec<_> = specials.iter().zip(0..).map(|(s, id)| Special::new(*s, id)).collect();
        let mut ids = Vec::with_capacity(text.len());
        for piece in split(text, &specials) {
            match piece {
                Piece::Special(id) => ids.push(id),
                Piece::Text(text) => ids.extend(text.bytes().map(|b| u32::from(b) + 3)),
            }
        }
        Ok(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_special_tokens() {
        assert_eq!(ByT5.encode("aé</s>").unwrap(), [100, 198, 172, 1]);
    }
}
