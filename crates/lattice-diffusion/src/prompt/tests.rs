use std::collections::HashMap;

use candle_core::{Device, Tensor};
use lattice_models::tokenizers::Vocabulary;
use proptest::prelude::*;

use super::*;

/// One id per character, so that chunks are easy to read.
struct Characters;

impl Tokenizer for Characters {
    fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        Ok(text.chars().map(u32::from).collect())
    }
}

struct Rows(HashMap<&'static str, usize>);

impl EmbeddingSource for Rows {
    fn load(&self, name: &str) -> Result<Option<Vec<Arc<[f32]>>>, EmbeddingError> {
        Ok(self.0.get(name).map(|&n| (0..n).map(|i| Arc::from([i as f32])).collect()))
    }
}

fn encoding(layout: ChunkLayout) -> PromptEncoding {
    PromptEncoding::weighted(Arc::new(Characters), layout)
}

fn layout(max: usize) -> ChunkLayout {
    ChunkLayout {
        start: Some(1),
        end: Some(2),
        pad: 0,
        max_length: Some(max),
        pad_to_max: true,
        min_length: 0,
    }
}

/// Tokens as text: letters for ids, `^ $ .` for start, end and padding, `#` for rows.
fn show(chunk: &Chunk) -> String {
    let show = |t: &WeightedToken| match &t.token {
        Token::Id(0) => '.',
        Token::Id(1) => '^',
        Token::Id(2) => '$',
        Token::Id(id) => char::from_u32(*id).unwrap_or('?'),
        Token::Vector(_) => '#',
    };
    chunk.iter().map(show).collect()
}

fn chunks(layout: ChunkLayout, prompt: &str, padding: Padding) -> Vec<String> {
    let source = Rows(HashMap::from([("e", 2), ("a,b", 1)]));
    let chunks = encoding(layout).tokenize(prompt, Some(&source), padding).unwrap();
    chunks.iter().map(show).collect()
}

fn segments(prompt: &str) -> Vec<(String, f64)> {
    parse_weights(prompt).into_iter().map(|s| (s.text, s.weight)).collect()
}

#[test]
fn weights_nest_and_numbers_are_absolute() {
    let show = |prompt: &str| -> String {
        segments(prompt).iter().map(|(t, w)| format!("[{t}|{w:.4}]")).collect::<Vec<_>>().concat()
    };
    let cases = [
        ("a (b) c", "[a |1.0000][b|1.1000][ c|1.0000]"),
        ("((b))", "[b|1.2100]"),
        ("(a (b:2) c)", "[a |1.1000][b|2.0000][ c|1.1000]"),
        ("(a:1.5:x)", "[a:1.5:x|1.1000]"),
        ("(:1.5)", "[:1.5|1.1000]"),
        (r"\(a\) (b\):2)", "[(a) |1.0000][b)|2.0000]"),
        (r"\\(a", r"[\(a|1.0000]"),
        ("(a", "[(a|1.0000]"),
        ("((a)", "[(a|1.1000]"),
        ("(((a))", "[(a|1.2100]"),
        ("a) (b) (c)", "[a) (b) (c)|1.0000]"),
        ("a)((b)", "[a)(|1.0000][b|1.1000]"),
        ("()", ""),
        ("(", "[(|1.0000]"),
        ("[a] {b|c}", "[[a] {b|c}|1.0000]"),
    ];
    for (prompt, want) in cases {
        assert_eq!(show(prompt), want, "{prompt}");
    }
}

/// The grammar as it is defined, by recursion over outermost groups.
fn recursive(text: &[(char, bool)], weight: f64, out: &mut Vec<(String, f64)>) {
    let (mut pieces, mut piece, mut depth) = (Vec::new(), Vec::new(), 0);
    for &c in text {
        match c {
            ('(', true) => {
                if depth == 0 && !piece.is_empty() {
                    pieces.push(std::mem::take(&mut piece));
                }
                depth += 1;
                piece.push(c);
            }
            (')', true) => {
                depth -= 1;
                piece.push(c);
                if depth == 0 {
                    pieces.push(std::mem::take(&mut piece));
                }
            }
            _ => piece.push(c),
        }
    }
    if !piece.is_empty() {
        pieces.push(piece);
    }
    for piece in pieces {
        let string = |cs: &[(char, bool)]| cs.iter().map(|c| c.0).collect::<String>();
        if piece.len() >= 2 && piece[0] == ('(', true) && piece[piece.len() - 1] == (')', true) {
            let mut inner = &piece[1..piece.len() - 1];
            let mut weight = weight * 1.1;
            if let Some(colon) = inner.iter().rposition(|c| c.0 == ':').filter(|&i| i > 0)
                && let Some(number) = number::parse_float(&string(&inner[colon + 1..]))
            {
                weight = number;
                inner = &inner[..colon];
            }
            recursive(inner, weight, out);
        } else {
            out.push((string(&piece), weight));
        }
    }
}

proptest! {
    #[test]
    fn grammar_is_the_recursive_one(prompt in r"[()a:\\1.]{0,24}") {
        let mut chars = Vec::new();
        let mut rest = prompt.chars().peekable();
        while let Some(c) = rest.next() {
            match if c == '\\' { rest.next_if(|c| "()".contains(*c)) } else { None } {
                Some(escaped) => chars.push((escaped, false)),
                None => chars.push((c, true)),
            }
        }
        let mut want = Vec::new();
        recursive(&chars, 1.0, &mut want);
        prop_assert_eq!(segments(&prompt), want);
    }

    #[test]
    fn any_text_is_tokenized(prompt in any::<String>()) {
        let source = Rows(HashMap::from([("e", 2)]));
        for vocabulary in [Vocabulary::Clip, Vocabulary::PileT5, Vocabulary::Qwen25, Vocabulary::HunyuanDitBert] {
            let encoding = PromptEncoding::weighted(vocabulary.tokenizer(), layouts::CLIP_L);
            if let Ok(chunks) = encoding.tokenize(&prompt, Some(&source), Padding::default()) {
                prop_assert!(chunks.iter().all(|c| c.len() == 77));
            }
        }
    }

    #[test]
    fn chunks_keep_every_token_in_order(prompt in "[a-c()]{0,60}", max in 0usize..14) {
        let encoding = encoding(layout(max));
        let chunks = encoding.tokenize(&prompt, None, Padding::default()).unwrap();
        let text: String = chunks.iter().map(show).collect();
        let kept: String = text.chars().filter(|c| !"^$.".contains(*c)).collect();
        let want: String = segments(&prompt).into_iter().map(|(t, _)| t).collect();
        prop_assert_eq!(kept, want);
        prop_assert!(chunks.iter().all(|c| c.len() == max.max(3)));
    }

    #[test]
    fn weight_one_is_the_identity(values in prop::collection::vec(-2.0f32..2.0, 12), w in 0.0f64..2.0) {
        let token = |weight| WeightedToken { token: Token::Id(7), weight };
        let chunk = vec![token(1.0), token(w), token(1.0)];
        let hidden = Tensor::from_vec(values.clone(), (2, 3, 2), &Device::Cpu).unwrap();
        let output = |_: &[Chunk]| Ok(EncoderOutput { hidden: hidden.clone(), pooled: None, mask: None });
        let out = encode_weighted(&[chunk], &layout(3), output).unwrap().hidden;
        let out = out.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        prop_assert_eq!(&out[..2], &values[..2]);
        prop_assert_eq!(&out[4..], &values[4..6]);
    }
}

#[test]
fn hostile_prompts_take_linear_time_and_no_stack() {
    let n = 1 << 20;
    let deep = format!("{}a{}", "(".repeat(n), ")".repeat(n));
    assert_eq!(parse_weights(&deep).len(), 1);
    assert_eq!(parse_weights(&"(".repeat(n)).len(), 1);
    assert_eq!(parse_weights(&")".repeat(n)).len(), 1);
    assert_eq!(parse_weights(&"(a:1)".repeat(n / 5)).len(), n / 5);
    let half_open = format!("{}{}", "(".repeat(n), "a)".repeat(n / 4));
    assert!(!parse_weights(&half_open).is_empty());
    let open = format!("{}a{}", "(".repeat(n), ")".repeat(n / 2));
    assert_eq!(parse_weights(&open).len(), 1);
}

#[test]
fn short_groups_move_and_long_ones_are_cut() {
    let none = Padding::default();
    assert_eq!(chunks(layout(8), "abc", none), ["^abc$..."]);
    assert_eq!(chunks(layout(8), "abcd(efg)", none), ["^abcd$..", "^efg$..."]);
    assert_eq!(chunks(layout(8), "abcdefghij", none), ["^abcdef$", "^ghij$.."]);
    assert_eq!(chunks(layout(8), "abcdef", none), ["^abcdef$"]);
    // A group that no chunk can hold is cut even if it is short.
    assert_eq!(chunks(layout(5), "abcde", none), ["^abc$", "^de$."]);
    assert_eq!(chunks(layout(0), "ab", none), ["^a$", "^b$"]);
    assert_eq!(chunks(layout(4), "", none), ["^$.."]);
}

#[test]
fn padding_options() {
    let open = ChunkLayout { max_length: None, pad_to_max: false, min_length: 4, ..layout(0) };
    assert_eq!(chunks(open, "a", Padding::default()), ["^a$."]);
    assert_eq!(chunks(open, "a", Padding { min_padding: 3, min_length: Some(1) }), ["^a$..."]);
    assert_eq!(chunks(open, "a", Padding { min_padding: 0, min_length: Some(6) }), ["^a$..."]);
}

#[test]
fn embeddings_become_rows() {
    let none = Padding::default();
    assert_eq!(chunks(layout(12), "x embedding:e y  z", none), ["^x##y z$...."]);
    assert_eq!(chunks(layout(12), "embedding:e\nembedding:e", none), ["^####$......"]);
    assert_eq!(chunks(layout(12), "embedding:e,, x", none), ["^##,, x$...."]);
    assert_eq!(chunks(layout(12), "embedding:a,b", none), ["^#$........."]);
    assert_eq!(chunks(layout(12), "a embedding:no b", none), ["^ab$........"]);
    assert_eq!(chunks(layout(16), "aembedding:e", none), ["^aembedding:e$.."]);
    let source = Rows(HashMap::new());
    let unnamed = encoding(layout(9)).tokenize("x embedding: \n", Some(&source), none);
    assert!(matches!(unnamed, Err(PromptError::UnnamedEmbedding)));
    // Without a source the word is text; the separator before it is dropped all the same.
    let plain = encoding(layout(20)).tokenize("x embedding:e", None, none).unwrap();
    assert_eq!(show(&plain[0]), "^xembedding:e$......");
}

#[test]
fn empty_prompts_still_encode_one_chunk() {
    let encode = |batch: &[Chunk]| {
        let hidden = Tensor::ones((batch.len(), 2, 3), candle_core::DType::F32, &Device::Cpu)?;
        Ok(EncoderOutput { hidden, pooled: None, mask: None })
    };
    let out = encode_weighted(&[], &layout(2), encode).unwrap();
    assert_eq!(out.hidden.dims(), [1, 2, 3]);
}
