//! What the custom sampling nodes pass on: samplers, schedules and noise.

use std::sync::Arc;

use lattice_diffusion::samplers;

use crate::node::GraphType;

/// A solver with its options.
#[derive(Clone, Debug)]
pub struct Sampler(pub Arc<dyn samplers::Sampler>);

impl Sampler {
    /// A solver as the graph passes it on.
    pub fn new(sampler: impl samplers::Sampler + 'static) -> Self {
        Self(Arc::new(sampler))
    }
}

impl GraphType for Sampler {
    const NAME: &'static str = "SAMPLER";
}

/// Noise levels, usually descending to 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Sigmas(pub Arc<[f32]>);

impl From<Vec<f32>> for Sigmas {
    fn from(sigmas: Vec<f32>) -> Self {
        Self(sigmas.into())
    }
}

impl From<&[f32]> for Sigmas {
    fn from(sigmas: &[f32]) -> Self {
        Self(sigmas.into())
    }
}

impl GraphType for Sigmas {
    const NAME: &'static str = "SIGMAS";

    fn bytes(&self) -> usize {
        size_of_val(&*self.0)
    }
}

/// Where the initial noise comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noise {
    /// None: zeros.
    Disabled,
    /// Drawn with a seed.
    Random {
        /// The seed.
        seed: u64,
    },
}

impl Noise {
    /// The seed, if noise is drawn.
    pub fn seed(self) -> Option<u64> {
        match self {
            Self::Disabled => None,
            Self::Random { seed } => Some(seed),
        }
    }
}

impl GraphType for Noise {
    const NAME: &'static str = "NOISE";
}
