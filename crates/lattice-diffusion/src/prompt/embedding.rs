//! `embedding:name` in prompts (textual inversion, Gal et al. 2022).

use std::sync::Arc;

use super::PromptError;
use super::number::is_space;

/// What marks a reference to an embedding.
pub(super) const PREFIX: &str = "embedding:";

/// An embedding that is there but cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[error("embedding {name}: {reason}")]
pub struct EmbeddingError {
    /// Its name in the prompt.
    pub name: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Where the rows of an embedding come from, for one text encoder.
pub trait EmbeddingSource {
    /// The rows of the embedding of that name; None if there is none.
    ///
    /// # Errors
    /// If it is there but unreadable.
    fn load(&self, name: &str) -> Result<Option<Vec<Arc<[f32]>>>, EmbeddingError>;
}

/// Splits before every reference that follows a space or line end (which is dropped). Empty parts are dropped.
pub(super) fn split(text: &str) -> impl Iterator<Item = &str> {
    let bytes = text.as_bytes();
    let separators = text.match_indices(PREFIX).map(|(i, _)| i);
    let starts = separators.filter(move |&i| i > 0 && matches!(bytes[i - 1], b' ' | b'\n'));
    let mut begin = 0;
    let ends = starts.map(Some).chain([None]);
    ends.map(move |start| {
        let part = match start {
            Some(start) => &text[begin..start - 1],
            None => &text[begin..],
        };
        begin = start.unwrap_or(begin);
        part
    })
    .filter(|part| !part.is_empty())
}

/// Rows of a reference (what stands behind the prefix), and the text that goes on behind the name. An embedding that
/// cannot be found is dropped with a warning.
pub(super) fn resolve(
    reference: &str,
    source: &dyn EmbeddingSource,
) -> Result<(Option<Vec<Arc<[f32]>>>, String), PromptError> {
    let mut words = reference.split(is_space).filter(|word| !word.is_empty());
    let name = words.next().ok_or(PromptError::UnnamedEmbedding)?;
    let mut rest = words.collect::<Vec<_>>().join(" ");
    let mut rows = source.load(name)?;
    let stripped = name.trim_matches(',');
    if rows.is_none() && stripped.len() < name.len() {
        if !stripped.is_empty() {
            rows = source.load(stripped)?;
        }
        // What the commas leave behind counts from the front, wherever they stood.
        rest = format!("{} {rest}", &name.chars().skip(stripped.chars().count()).collect::<String>());
    }
    if rows.is_none() {
        tracing::warn!("embedding {name} does not exist and is left out of the prompt");
    }
    Ok((rows, rest))
}
