//! The patches of published guidance methods.

mod perturbed;
mod plain_cfg;
mod post;
mod pre;
mod range;
mod unet;

use candle_core::{DType, Result, Tensor};

pub use perturbed::{NegativeWithoutLayers, PerturbedAttention, SelfAttention, SkipLayers, WatchNegative};
pub use plain_cfg::{LinearCfg, PerpNeg, RenormCfg, RescaleCfg, TriangleCfg, perp_neg};
pub use post::{CfgNorm, CfgZeroStar, EpsilonScaling, Mahiro};
pub use pre::{AdaptiveProjectedGuidance, FreSca, OperationOnGuidance, TangentialDampingCfg};
pub use range::Range;
pub use unet::{DeepShrink, FreeUPatch, HyperTilePatch, HypernetworkPatch, TokenMergingPatch};

/// Axes other than the batch's.
fn item_axes(t: &Tensor) -> Vec<usize> {
    (1..t.rank()).collect()
}

/// The last three axes: channels, rows and columns of a picture.
fn last_axes(t: &Tensor) -> Vec<usize> {
    (t.rank().saturating_sub(3)..t.rank()).collect()
}

/// Euclidean norm over axes, which stay with size 1.
fn norm(t: &Tensor, axes: &[usize]) -> Result<Tensor> {
    dot(t, t, axes)?.sqrt()
}

/// Inner product over axes, which stay with size 1.
fn dot(a: &Tensor, b: &Tensor, axes: &[usize]) -> Result<Tensor> {
    (a * b)?.sum_keepdim(axes)
}

/// Inner product of everything, in double precision.
fn dot_all(a: &Tensor, b: &Tensor) -> Result<f64> {
    (a.to_dtype(DType::F64)? * b.to_dtype(DType::F64)?)?.sum_all()?.to_vec0()
}
