//! What sampler nodes take in place of a model with conditionings.

use lattice_diffusion::guidance;

use crate::node::GraphType;

/// A model with conditionings and the way they guide it.
#[derive(Clone)]
pub struct Guider(pub guidance::Guider);

impl GraphType for Guider {
    const NAME: &'static str = "GUIDER";
}
