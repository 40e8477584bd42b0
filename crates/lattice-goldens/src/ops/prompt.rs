//! Token ids, and weights on encoder outputs.

use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail, ensure};
use candle_core::Tensor;
use lattice_diffusion::prompt::{
    Chunk, EmbeddingError, EmbeddingSource, EncoderOutput, Padding, PromptEncoding, Token, WeightedToken,
    encode_weighted, layouts, parse_weights,
};
use lattice_models::tokenizers::Vocabulary;
use serde_json::Value as Json;

use super::Operation;
use crate::{Case, Check, Outcome};

/// Operations of topic `prompt`.
pub(super) const OPERATIONS: &[Operation] =
    &[("prompt", "tokens", tokens), ("prompt", "weighting", weighting)];

/// The encodings by the names the data give them.
fn encoding(name: &str) -> Result<PromptEncoding> {
    let (vocabulary, layout) = match name {
        "clip_l" => (Vocabulary::Clip, layouts::CLIP_L),
        "clip_g" => (Vocabulary::Clip, layouts::CLIP_G),
        "clip_h" => (Vocabulary::Clip, layouts::CLIP_H),
        "t5xxl_sd3" => (Vocabulary::T5, layouts::T5_SD3),
        "t5xxl_flux" => (Vocabulary::T5, layouts::T5_FLUX),
        "pile_t5xl" => (Vocabulary::PileT5, layouts::PILE_T5),
        "bert_hydit" => (Vocabulary::HunyuanDitBert, layouts::HUNYUAN_DIT_BERT),
        "byt5" => (Vocabulary::ByT5, layouts::T5_UNPADDED),
        "qwen25_image" => return Ok(PromptEncoding::qwen_image(Vocabulary::Qwen25.tokenizer())),
        other => bail!("no encoding {other}"),
    };
    Ok(PromptEncoding::weighted(vocabulary.tokenizer(), layout))
}

/// The embeddings that the index describes under `embeddings`, as CLIP-L sees them.
struct Embeddings;

impl EmbeddingSource for Embeddings {
    fn load(&self, name: &str) -> Result<Option<Vec<Arc<[f32]>>>, EmbeddingError> {
        const WIDTH: usize = 768;
        let ones = |rows: usize| vec![Arc::from([1f32; WIDTH]); rows];
        Ok(match name {
            "badhands" => {
                let row = |r: usize| (0..WIDTH).map(|i| (WIDTH * r + i) as f32).collect();
                Some((0..3).map(row).collect())
            }
            "dual" | "single1d" => Some(ones(1)),
            "long" => Some(ones(80)),
            _ => None,
        })
    }
}

/// A weight, which JSON writes as text where it is not finite.
fn weight(json: &Json) -> Result<f64> {
    let number = json.as_f64().or_else(|| json.as_str().and_then(|s| s.parse().ok()));
    number.ok_or_else(|| anyhow!("{json} is no weight"))
}

/// A token as the data write it: an id, or first value and width of a row.
fn token_json(token: &Token) -> Json {
    match token {
        Token::Id(id) => Json::from(*id),
        Token::Vector(row) => serde_json::json!({ "embedding_row": [row[0], row.len()] }),
    }
}

fn tokens(case: &Case<'_>) -> Result<Outcome> {
    let text = case.str("text")?;
    let mut checks = Vec::new();
    let segments = parse_weights(text);
    if let Some(wanted) = case.json["segments"].as_array() {
        let texts: Vec<_> = segments.iter().map(|s| Json::from(s.text.as_str())).collect();
        let wanted_texts: Vec<_> = wanted.iter().map(|s| s[0].clone()).collect();
        checks.push(Check::equal("segments", &texts, &wanted_texts));
        let weights: Vec<_> = segments.iter().map(|s| s.weight).collect();
        let wanted = wanted.iter().map(|s| weight(&s[1])).collect::<Result<Vec<_>>>()?;
        checks.push(Check::close_values("segment weights", &weights, &wanted, 0.0, 1e-6));
    }
    let names = case.field("tok")?.as_object().context("tok is no object")?;
    for (name, wanted) in names {
        let encoding = encoding(name)?;
        let embeddings = (name == "clip_l").then_some(&Embeddings as &dyn EmbeddingSource);
        let got = encoding.tokenize(text, embeddings, Padding::default());
        if wanted["error"] == true || case.json["error"] == true {
            checks.push(Check::equal(&format!("{name} fails"), &got.is_err(), &true));
            continue;
        }
        compare(name, &got?, wanted, encoding.layout.pad, &mut checks)?;
    }
    Ok(Outcome::Ran(checks))
}

fn compare(name: &str, got: &[Chunk], wanted: &Json, pad: u32, checks: &mut Vec<Check>) -> Result<()> {
    let wanted = wanted.as_array().context("chunks are no list")?;
    checks.push(Check::equal(&format!("{name} chunks"), &got.len(), &wanted.len()));
    for (i, (got, wanted)) in got.iter().zip(wanted).enumerate() {
        let length = wanted["length"].as_u64().context("length")? as usize;
        let mut ids = wanted["ids"].as_array().context("ids")?.clone();
        let mut weights = match wanted["weights"].as_array() {
            Some(weights) => weights.iter().map(weight).collect::<Result<Vec<_>>>()?,
            None => vec![1.0; ids.len()],
        };
        ensure!(ids.len() <= length && weights.len() == ids.len(), "{name}: malformed chunk {i}");
        ids.resize(length, pad.into());
        weights.resize(length, 1.0);
        let got_ids: Vec<Json> = got.iter().map(|t| token_json(&t.token)).collect();
        let got_weights: Vec<f64> = got.iter().map(|t| t.weight).collect();
        checks.push(Check::equal(&format!("{name} ids {i}"), &got_ids, &ids));
        checks.push(Check::close_values(&format!("{name} weights {i}"), &got_weights, &weights, 0.0, 1e-6));
    }
    Ok(())
}

fn weighting(case: &Case<'_>) -> Result<Outcome> {
    let rows = case.field("weights")?.as_array().context("weights are no list")?;
    let mut chunks = Vec::new();
    for row in rows {
        let row = row.as_array().context("a section's weights are no list")?;
        let token = |w: &Json| Ok(WeightedToken { token: Token::Id(0), weight: weight(w)? });
        chunks.push(row.iter().map(token).collect::<Result<Chunk>>()?);
    }
    let hidden = case.tensor("encoder_out")?;
    let pooled = if case.has_tensor("encoder_pooled") { Some(case.tensor("encoder_pooled")?) } else { None };
    let out = encode_weighted(&chunks, &layouts::CLIP_L, |batch| {
        if batch.len() != hidden.dim(0)? {
            candle_core::bail!("{} sequences asked for, the data have {}", batch.len(), hidden.dim(0)?)
        }
        Ok(EncoderOutput { hidden: hidden.clone(), pooled: pooled.clone(), mask: None })
    })?;
    let tolerance = |name: &str| case.tolerance()[name].as_f64().unwrap_or(0.0);
    let close = |name: &str, got: &Tensor| -> Result<Check> {
        let want = case.tensor(name)?;
        Check::close(name, &got.reshape(want.shape())?, &want, tolerance("abs"), tolerance("rel"))
    };
    let mut checks = vec![close("out", &out.hidden)?];
    if case.has_tensor("pooled") {
        checks.push(close("pooled", &out.pooled.context("no pooled output")?)?);
    }
    Ok(Outcome::Ran(checks))
}
