//! Changes to the inner workings of U-Nets.

use std::sync::Arc;

use lattice_models::options::{Downscale, FreeU, HyperTile, TokenMerging};
use lattice_models::{ForwardOptions, Hypernetwork};

use super::Range;
use crate::ModelSampling;
use crate::guidance::patch::NetworkChange;

/// Stronger backbone features and weaker low frequencies of skips (FreeU, arXiv 2309.11497).
#[derive(Clone, Copy, Debug)]
pub struct FreeUPatch(pub FreeU);

impl NetworkChange for FreeUPatch {
    fn apply(&self, _sampling: &ModelSampling, _sigma: f64, options: &mut ForwardOptions) {
        options.free_u.push(self.0);
    }
}

/// Self-attention within tiles.
#[derive(Clone, Copy, Debug)]
pub struct HyperTilePatch(pub HyperTile);

impl NetworkChange for HyperTilePatch {
    fn apply(&self, _sampling: &ModelSampling, _sigma: f64, options: &mut ForwardOptions) {
        options.hyper_tile = Some(self.0);
    }
}

/// Self-attention over merged tokens (arXiv 2303.17604).
#[derive(Clone, Copy, Debug)]
pub struct TokenMergingPatch(pub TokenMerging);

impl NetworkChange for TokenMergingPatch {
    fn apply(&self, _sampling: &ModelSampling, _sigma: f64, options: &mut ForwardOptions) {
        options.token_merging = Some(self.0);
    }
}

/// A hypernetwork on every attention.
#[derive(Clone, Debug)]
pub struct HypernetworkPatch {
    /// The network.
    pub network: Arc<Hypernetwork>,
    /// Factor of its changes.
    pub strength: f64,
}

impl NetworkChange for HypernetworkPatch {
    fn apply(&self, _sampling: &ModelSampling, _sigma: f64, options: &mut ForwardOptions) {
        options.hypernetworks.push((self.network.clone(), self.strength));
    }
}

/// Smaller feature maps in a part of the sampling.
#[derive(Clone, Debug)]
pub struct DeepShrink {
    /// Where and how.
    pub downscale: Downscale,
    /// When.
    pub range: Range,
}

impl NetworkChange for DeepShrink {
    fn apply(&self, sampling: &ModelSampling, sigma: f64, options: &mut ForwardOptions) {
        if self.range.contains(sampling, sigma) {
            options.downscale = Some(self.downscale.clone());
        }
    }
}
