//! Plans and carrying them out.

use indexmap::IndexMap;
use lattice_weights::{StateDict, Weight};

use crate::convert::concat_rows;
use crate::error::{Built, ModelError};

/// How a single-file tensor is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// It is that tensor.
    Copy(String),
    /// The rows of these tensors one after another.
    Rows(Vec<String>),
    /// That tensor with the first and second half of its rows exchanged (scale and shift of a modulation).
    SwapHalves(String),
}

/// The tensors of a single file and how each is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan(pub IndexMap<String, Piece>);

impl Plan {
    pub(super) fn put(&mut self, target: String, piece: Piece) {
        self.0.insert(target, piece);
    }

    /// Makes the single file's tensors.
    ///
    /// # Errors
    /// If tensors to be joined are missing or do not fit together.
    pub fn apply(&self, dict: &StateDict) -> Built<StateDict> {
        let root = dict.root();
        let mut out = IndexMap::with_capacity(self.0.len());
        for (target, piece) in &self.0 {
            let weight = match piece {
                Piece::Copy(name) => root.weight(name)?,
                Piece::Rows(names) => {
                    let parts = names.iter().map(|name| root.weight(name)).collect::<Result<Vec<_>, _>>()?;
                    concat_rows(&parts).map_err(|e| named(dict, target, &e))?
                }
                Piece::SwapHalves(name) => {
                    let weight = root.weight(name)?;
                    swap_halves(&weight).map_err(|e| named(dict, name, &e))?
                }
            };
            out.insert(target.clone(), weight);
        }
        Ok(StateDict::new(dict.source(), out, dict.metadata().clone()))
    }
}

fn named(dict: &StateDict, tensor: &str, error: &candle_core::Error) -> ModelError {
    ModelError::Invalid { file: dict.source().to_owned(), what: format!("tensor `{tensor}`: {error}") }
}

fn swap_halves(weight: &Weight) -> candle_core::Result<Weight> {
    let rows = weight.dims().first().copied().unwrap_or(0);
    let half = rows / 2;
    concat_rows(&[weight.narrow_rows(half, rows - half)?, weight.narrow_rows(0, half)?])
}

/// Number of consecutive children 0, 1, ... of `stem` that some name lies below.
pub(super) fn count_children<'a>(names: impl Iterator<Item = &'a str> + Clone, stem: &str) -> usize {
    let exists = |i: &usize| {
        let prefix = format!("{stem}.{i}.");
        names.clone().any(|n| n.starts_with(&prefix))
    };
    (0..names.clone().count()).take_while(exists).count()
}
