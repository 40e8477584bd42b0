//! Changes to the guided prediction.

use candle_core::{Result, Tensor};

use super::{dot, item_axes, norm};
use crate::guidance::patch::{Combined, PostCfg, Step};

/// Guidance with an optimised scale of the unconditional prediction (CFG-Zero*, arXiv 2503.18886).
#[derive(Clone, Copy, Debug)]
pub struct CfgZeroStar;

impl PostCfg for CfgZeroStar {
    fn apply(&self, step: &Step<'_>, combined: &Combined) -> Result<Tensor> {
        let p = &combined.predictions;
        let axes = item_axes(step.x);
        let (c, u) = ((step.x - &p.cond)?, (step.x - &p.uncond)?);
        let alpha = (dot(&c, &u, &axes)? / (dot(&u, &u, &axes)? + 1e-8)?)?;
        // D + U (a - 1) + g U (1 - a).
        let change = ((alpha - 1.0)? * (1.0 - step.cfg))?;
        &combined.denoised + p.uncond.broadcast_mul(&change)?
    }
}

/// Holds the norm over the channels at the conditional prediction's.
#[derive(Clone, Copy, Debug)]
pub struct CfgNorm {
    /// Factor of the result.
    pub strength: f64,
}

impl PostCfg for CfgNorm {
    fn apply(&self, _step: &Step<'_>, combined: &Combined) -> Result<Tensor> {
        let cond = norm(&combined.predictions.cond, &[1])?;
        let guided = norm(&combined.denoised, &[1])?;
        let scale = (cond / (guided + 1e-8)?)?.clamp(0f32, 1f32)?;
        combined.denoised.broadcast_mul(&scale)? * self.strength
    }
}

/// Leans towards the scaled conditional prediction the more both directions disagree.
#[derive(Clone, Copy, Debug)]
pub struct Mahiro;

impl PostCfg for Mahiro {
    fn apply(&self, step: &Step<'_>, combined: &Combined) -> Result<Tensor> {
        let leap = (&combined.predictions.cond * step.cfg)?;
        let merged = ((&leap + &combined.denoised)? / 2.0)?;
        let flattened = |t: &Tensor| t.sign()? * t.abs()?.sqrt()?;
        let u = flattened(&(&combined.predictions.uncond * step.cfg)?)?;
        let m = flattened(&merged)?;
        let limited = |t: &Tensor| norm(t, &[1])?.maximum(1e-8);
        let similarity = (dot(&u, &m, &[1])? / (limited(&u)? * limited(&m)?)?)?;
        let k = 2.0 * (f64::from(similarity.mean_all()?.to_vec0::<f32>()?) + 1.0);
        ((&combined.denoised * k)? + (leap * (4.0 - k))?)? / 4.0
    }
}

/// Scales the predicted noise down against exposure bias (arXiv 2308.15321).
#[derive(Clone, Copy, Debug)]
pub struct EpsilonScaling {
    /// What the noise is divided by.
    pub scaling_factor: f64,
}

impl PostCfg for EpsilonScaling {
    fn apply(&self, step: &Step<'_>, combined: &Combined) -> Result<Tensor> {
        step.x - ((step.x - &combined.denoised)? / self.scaling_factor)?
    }
}
