//! Guidance away from what a worse network predicts: perturbed attention, blurred regions, skipped layers.

use std::sync::Arc;

use candle_core::{DType, Result, Tensor};
use lattice_media::filter::{Border, convolve, relative_gaussian};
use lattice_models::ForwardOptions;
use lattice_models::options::{AttentionWatch, MiddleAttention, SkippedBlocks};

use super::Range;
use crate::ModelSampling;
use crate::conditioning::repeat_batch;
use crate::guidance::patch::{Combined, NetworkChange, PostCfg, Step};
use crate::model::ListRole;

/// Perturbed attention guidance (Ahn et al., arXiv 2403.17377): `D + scale (C - P)`, where P is the prediction of a
/// network whose middle block attends to nothing. One more call per step.
#[derive(Clone, Copy, Debug)]
pub struct PerturbedAttention {
    /// Strength; 0 is none.
    pub scale: f64,
}

impl PostCfg for PerturbedAttention {
    fn apply(&self, step: &Step<'_>, combined: &Combined) -> Result<Tensor> {
        if self.scale == 0.0 {
            return Ok(combined.denoised.clone());
        }
        let identity = |options: &mut ForwardOptions| options.middle_attention = MiddleAttention::Identity;
        match (step.again)(ListRole::Positive, step.x, &identity)? {
            Some(perturbed) => away(combined, &perturbed, self.scale),
            None => Ok(combined.denoised.clone()),
        }
    }
}

/// `D + scale (C - worse)`.
fn away(combined: &Combined, worse: &Tensor, scale: f64) -> Result<Tensor> {
    &combined.denoised + ((&combined.predictions.cond - worse)? * scale)?
}

/// Skip layer guidance (Stability AI, 2024, after Hong et al., arXiv 2411.18664): `D + scale (C - S)`, where S is the
/// prediction of a network without some of its blocks. One more call per step of the range.
#[derive(Clone, Debug)]
pub struct SkipLayers {
    /// The blocks.
    pub blocks: SkippedBlocks,
    /// Strength; 0 is none.
    pub scale: f64,
    /// When.
    pub range: Range,
    /// How far the deviation of the result is brought back to that of C, 0 to 1.
    pub rescale: f64,
}

impl PostCfg for SkipLayers {
    fn apply(&self, step: &Step<'_>, combined: &Combined) -> Result<Tensor> {
        if self.scale <= 0.0 || !self.range.contains(step.sampling, step.sigma) {
            return Ok(combined.denoised.clone());
        }
        let skip = |options: &mut ForwardOptions| options.skipped = self.blocks.clone();
        let Some(worse) = (step.again)(ListRole::Positive, step.x, &skip)? else {
            return Ok(combined.denoised.clone());
        };
        let guided = away(combined, &worse, self.scale)?;
        if self.rescale == 0.0 {
            return Ok(guided);
        }
        let ratio = deviation(&combined.predictions.cond)? / deviation(&guided)?;
        guided * (self.rescale * ratio + (1.0 - self.rescale))
    }
}

/// Standard deviation of all elements, unbiased.
fn deviation(t: &Tensor) -> Result<f64> {
    t.to_dtype(DType::F64)?.flatten_all()?.var(0)?.sqrt()?.to_vec0()
}

/// Skips blocks in the network that predicts for the negative prompt: the worse network takes its place, at no cost.
#[derive(Clone, Debug)]
pub struct NegativeWithoutLayers {
    /// The blocks.
    pub blocks: SkippedBlocks,
    /// When.
    pub range: Range,
}

impl NetworkChange for NegativeWithoutLayers {
    fn apply(&self, sampling: &ModelSampling, sigma: f64, options: &mut ForwardOptions) {
        if self.range.contains(sampling, sigma) {
            options.skipped = self.blocks.clone();
        }
    }

    fn negative_only(&self) -> bool {
        true
    }
}

/// Self-attention guidance (Hong et al., arXiv 2210.00939): away from the prediction for a latent that is blurred where
/// the middle block looks. One more call per step, and the negative prompt is evaluated by itself.
#[derive(Clone, Debug)]
pub struct SelfAttention {
    /// Strength.
    pub scale: f64,
    /// Deviation of the blur in latent cells.
    pub blur_sigma: f64,
    /// Filled by [`WatchNegative`].
    pub watch: AttentionWatch,
}

/// Has the network that predicts for the negative prompt tell where its middle block looks.
#[derive(Clone, Debug)]
pub struct WatchNegative(pub AttentionWatch);

impl NetworkChange for WatchNegative {
    fn apply(&self, _sampling: &ModelSampling, _sigma: f64, options: &mut ForwardOptions) {
        options.middle_attention = MiddleAttention::Watched(self.0.clone());
    }

    fn negative_only(&self) -> bool {
        true
    }
}

impl SelfAttention {
    /// Least side of a latent that can be blurred, minus one: the radius of the kernel.
    const RADIUS: usize = 4;

    /// With the watch that it needs.
    pub fn new(scale: f64, blur_sigma: f64) -> (Self, Arc<WatchNegative>) {
        let watch = AttentionWatch::default();
        (Self { scale, blur_sigma, watch: watch.clone() }, Arc::new(WatchNegative(watch)))
    }

    /// The prediction, blurred where more than the average of attention goes.
    fn degraded(&self, prediction: &Tensor, received: &Tensor) -> Result<Tensor> {
        let (batch, _, height, width) = prediction.dims4()?;
        let looked_at = received.gt(1.0f64)?.to_dtype(prediction.dtype())?;
        let mask = repeat_batch(&looked_at.upsample_nearest2d(height, width)?, batch)?;
        let blurred = if self.blur_sigma > 0.0 {
            let kernel = relative_gaussian(Self::RADIUS, (self.blur_sigma / Self::RADIUS as f64) as f32);
            convolve(prediction, &kernel, Border::Reflect)?
        } else {
            prediction.clone()
        };
        prediction + (blurred - prediction)?.broadcast_mul(&mask)?
    }
}

impl PostCfg for SelfAttention {
    fn apply(&self, step: &Step<'_>, combined: &Combined) -> Result<Tensor> {
        let Combined { denoised, predictions } = combined;
        let received = self.watch.take();
        let large = matches!(*step.x.dims(), [_, _, h, w] if h.min(w) > Self::RADIUS);
        let (true, true, Some(received)) = (large, predictions.uncond_evaluated, received) else {
            return Ok(denoised.clone());
        };
        let degraded = self.degraded(&predictions.uncond, &received)?;
        let noised = ((&degraded + step.x)? - &predictions.uncond)?;
        match (step.again)(ListRole::Negative, &noised, &|_| ())? {
            Some(worse) => denoised + ((degraded - worse)? * self.scale)?,
            None => Ok(denoised.clone()),
        }
    }
}
