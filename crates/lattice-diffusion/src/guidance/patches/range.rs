//! Parts of the sampling.

use crate::ModelSampling;

/// Part of the sampling, by shares of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// Where it starts, 0 to 1.
    pub start: f64,
    /// Where it ends.
    pub end: f64,
}

impl Range {
    /// Whether a noise level belongs to it.
    pub(crate) fn contains(self, sampling: &ModelSampling, sigma: f64) -> bool {
        (sampling.percent_to_sigma(self.end)..=sampling.percent_to_sigma(self.start)).contains(&sigma)
    }
}
