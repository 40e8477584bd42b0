//! Prompts, workflows and messages of clients.

use std::sync::{Arc, LazyLock};

use lattice_diffusion::prompt::{
    EmbeddingError, EmbeddingSource, Padding, PromptEncoding, layouts, parse_weights,
};
use lattice_graph::workflow::{Conversion, LocalTime, SeededChoice, is_workflow};
use lattice_graph::{Extensions, Prompt, Registry, validate};
use lattice_models::tokenizers::Vocabulary;
use serde_json::Value as Json;

static REGISTRY: LazyLock<Registry> = LazyLock::new(lattice_nodes::registry);

/// A prompt in API format, validated against the real nodes.
pub(crate) fn prompt(data: &[u8]) {
    if let Ok(json) = serde_json::from_slice::<Json>(data) {
        judge(json);
    }
}

fn judge(json: Json) {
    let Ok(prompt) = Prompt::parse(json) else { return };
    match validate(prompt, &REGISTRY, &Extensions::default(), None) {
        Ok(accepted) => assert!(!accepted.outputs.is_empty() && accepted.prompt.is_object()),
        Err(failure) => drop(failure.to_json()),
    }
}

/// A workflow in the editor's format, converted to a prompt and that validated.
pub(crate) fn workflow(data: &[u8]) {
    let Ok(json) = serde_json::from_slice::<Json>(data) else { return };
    let mut choice = SeededChoice::new(0);
    let mut choose = |count| choice.choose(count);
    let mut conversion = Conversion {
        specs: &*REGISTRY,
        extensions: &Extensions::default(),
        choose: &mut choose,
        now: LocalTime { year: 2024, month: 2, day: 29, ..LocalTime::default() },
    };
    let converted = conversion.convert(&json);
    assert!(converted.is_err() || is_workflow(&json), "converted what is no workflow");
    if let Ok(prompt) = converted {
        judge(prompt.into());
    }
}

/// Embeddings: `embedding:known` has two rows.
struct Embeddings;

impl EmbeddingSource for Embeddings {
    fn load(&self, name: &str) -> Result<Option<Vec<Arc<[f32]>>>, EmbeddingError> {
        Ok((name == "known").then(|| vec![Arc::from([0.5; 4]), Arc::from([1.0; 4])]))
    }
}

/// A prompt's text: the weight grammar, embeddings, and CLIP's tokens in chunks.
pub(crate) fn prompt_text(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for segment in parse_weights(&text) {
        assert!(!segment.text.is_empty() && segment.text.len() <= text.len());
    }
    for (vocabulary, layout) in
        [(Vocabulary::Clip, layouts::CLIP_L), (Vocabulary::ByT5, layouts::T5_UNPADDED)]
    {
        let encoding = PromptEncoding::weighted(vocabulary.tokenizer(), layout);
        if let Ok(chunks) = encoding.tokenize(&text, Some(&Embeddings), Padding::default()) {
            let longest = layout.max_length.unwrap_or(usize::MAX);
            assert!(!chunks.is_empty() && chunks.iter().all(|chunk| chunk.len() <= longest));
        }
    }
}

/// What a client says over its WebSocket.
pub(crate) fn client_message(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let known = lattice_server::ClientMessage::parse(text);
        assert_eq!(known.is_some(), serde_json::from_str::<Json>(text).is_ok());
    }
}
