//! What a file's metadata says about settings that no tensor shows.
//!
//! Reduced models cannot be recognised by the widths of the published ones. They carry `lattice.hparams` (the settings of
//! each component) or `lattice.config` (trained models of this project), both JSON objects by component. Published
//! files carry neither, and the family's constants hold.

use lattice_weights::StateDict;
use serde_json::{Map, Value as Json};

/// Metadata: settings of the components.
pub(crate) const SETTINGS: &str = "lattice.hparams";
/// Metadata: the family.
pub(crate) const FAMILY: &str = "lattice.family";

/// Settings from the metadata; empty for published files.
#[derive(Clone, Debug, Default)]
pub struct Hints(Vec<Json>);

impl Hints {
    /// Reads a file's metadata. Text that is no JSON counts as absent, as unknown metadata does.
    pub fn of(dict: &StateDict) -> Self {
        let parse = |key| dict.metadata().get(key).and_then(|text| serde_json::from_str(text).ok());
        Self([SETTINGS, "lattice.config"].into_iter().filter_map(parse).collect())
    }

    /// The settings of one component: `unet`, `vae` or `text`; the whole object where components have no level of their
    /// own (files of one component).
    #[must_use]
    pub fn component(&self, name: &str) -> Self {
        let pick = |json: &Json| json.get(name).unwrap_or(json).clone();
        Self(self.0.iter().map(pick).collect())
    }

    /// All of it as one object, for the metadata of another file.
    pub(crate) fn merged(&self) -> Map<String, Json> {
        let mut all = Map::new();
        for (name, value) in self.0.iter().filter_map(Json::as_object).flatten() {
            all.entry(name.clone()).or_insert_with(|| value.clone());
        }
        all
    }

    /// A count.
    pub fn count(&self, name: &str) -> Option<usize> {
        self.0.iter().find_map(|json| json.get(name)?.as_u64()).map(|v| v as usize)
    }

    /// A number.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.0.iter().find_map(|json| json.get(name)?.as_f64())
    }

    /// A text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find_map(|json| json.get(name)?.as_str())
    }
}
