//! Guidance: several predictions of a model made into one (Ho & Salimans 2022).
//!
//! A [`Guider`] says which conditionings are evaluated and how their predictions are combined; [`Patches`] of the model
//! change the predictions before, replace the formula, or change its result. [`Guider::start`] yields the
//! [`crate::Denoiser`] of one run.

mod guider;
mod patch;
mod patches;

use std::sync::Arc;

use crate::model::NoiseModel;

pub use guider::{GuidedRun, Guider, GuiderKind};
pub use patch::{
    Again, CfgFunction, Combined, Evaluate, NetworkChange, Patches, PostCfg, PreCfg, Predictions, Step,
};
pub use patches::{
    AdaptiveProjectedGuidance, CfgNorm, CfgZeroStar, DeepShrink, EpsilonScaling, FreSca, FreeUPatch,
    HyperTilePatch, HypernetworkPatch, LinearCfg, Mahiro, NegativeWithoutLayers, OperationOnGuidance,
    PerpNeg, PerturbedAttention, Range, RenormCfg, RescaleCfg, SelfAttention, SkipLayers,
    TangentialDampingCfg, TokenMergingPatch, TriangleCfg, WatchNegative, perp_neg,
};

/// A model with the changes that nodes made to its guidance. Cloning copies neither weights nor patches.
#[derive(Clone)]
pub struct Model {
    /// Network, noise levels, scales.
    pub base: Arc<dyn NoiseModel>,
    /// Changes to guidance.
    pub patches: Patches,
}

impl Model {
    /// A model without patches.
    pub fn new(base: Arc<dyn NoiseModel>) -> Self {
        Self { base, patches: Patches::default() }
    }
}

/// Whether a scale is 1, up to rounding.
fn is_one(scale: f64) -> bool {
    (scale - 1.0).abs() <= 1e-9 * scale.abs().max(1.0)
}

#[cfg(test)]
mod tests;
