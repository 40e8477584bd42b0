use super::*;

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn message(number: u64, body: &[u8]) -> Vec<u8> {
    [varint(number << 3 | 2), varint(body.len() as u64), body.to_vec()].concat()
}

fn piece(text: &str, score: f32, kind: u64) -> Vec<u8> {
    let score = [varint(2 << 3 | 5), score.to_bits().to_le_bytes().to_vec()].concat();
    let kind = [varint(3 << 3), varint(kind)].concat();
    message(1, &[message(1, text.as_bytes()), score, kind].concat())
}

fn model(kind: u64, pieces: &[Vec<u8>]) -> SentencePiece {
    let trainer = message(2, &[varint(3 << 3), varint(kind)].concat());
    SentencePiece::from_model("test", &[pieces.concat(), trainer].concat()).unwrap()
}

#[test]
fn unigram_takes_the_most_probable_split() {
    let model = model(
        1,
        &[
            piece("<unk>", 0.0, 2),
            piece("\u{2581}", -2.0, 1),
            piece("a", -1.0, 1),
            piece("b", -1.0, 1),
            piece("ab", -1.5, 1),
            piece("\u{2581}ab", -4.0, 1),
            piece("ba", -3.0, 5),
            piece("USER", 0.0, 4),
        ],
    );
    // "▁" + "ab" costs 3.5, "▁ab" 4.
    assert_eq!(model.encode("  ab  ab ").unwrap(), [1, 4, 1, 4]);
    // A run of unknown characters is one token; the unused piece is never chosen.
    assert_eq!(model.encode("baxyUSER").unwrap(), [1, 3, 2, 0, 7]);
    assert!(model.encode("   ").unwrap().is_empty());
}

#[test]
fn bpe_merges_by_score_and_takes_unused_pieces_apart() {
    let model = model(
        2,
        &[
            piece("<unk>", 0.0, 2),
            piece("\u{2581}", -9.0, 1),
            piece("a", -9.0, 1),
            piece("b", -9.0, 1),
            piece("ab", -1.0, 5),
            piece("abb", -2.0, 1),
        ],
    );
    assert_eq!(model.encode("abb").unwrap(), [1, 5]);
    assert_eq!(model.encode("ab").unwrap(), [1, 2, 3]);
    assert_eq!(model.encode("azzb").unwrap(), [1, 2, 0, 3]);
}

#[test]
fn broken_files_are_refused() {
    let good = [piece("<unk>", 0.0, 2), piece("a", 0.0, 1)].concat();
    assert!(SentencePiece::from_model("test", &good).is_ok());
    for length in [0, 1, 5, good.len() - 1] {
        assert!(SentencePiece::from_model("test", &good[..length]).is_err(), "{length}");
    }
    assert!(SentencePiece::from_model("test", b"PK\x03\x04 a zip file").is_err());
}
