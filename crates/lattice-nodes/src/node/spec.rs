//! Pieces of declarations.

use std::sync::Arc;

use lattice_graph::{Choices, Extensions};
use serde_json::{Map, Value as Json};

use crate::services::Folders;

/// A JSON object with its fields in the order given.
pub fn object<const N: usize>(fields: [(&str, Json); N]) -> Map<String, Json> {
    fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// A fixed list of choices.
pub fn choices<T: AsRef<str>>(list: impl IntoIterator<Item = T>) -> Choices {
    Choices::Fixed(list.into_iter().map(|choice| choice.as_ref().into()).collect())
}

/// A list that a function makes anew each time.
pub fn listed_by(list: impl Fn(&Extensions) -> Vec<String> + Send + Sync + 'static) -> Choices {
    Choices::Dynamic(Arc::new(move |extensions| list(extensions).into_iter().map(Json::from).collect()))
}

/// The files of a model folder (`checkpoints`, `loras`, ...); none where the host lends no folders.
pub fn files(kind: &'static str) -> Choices {
    listed_by(move |extensions| {
        extensions.get::<Folders>().map(|folders| folders.list(kind)).unwrap_or_default()
    })
}
