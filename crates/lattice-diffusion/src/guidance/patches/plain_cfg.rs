//! Replacements of the plain formula.

use candle_core::{Result, Tensor};

use super::{dot_all, item_axes, norm};
use crate::conditioning::Conditioning;
use crate::guidance::patch::{CfgFunction, Predictions, Step, plain};

/// Rescaled guidance (arXiv 2305.08891, section 3.4): the guided velocity keeps the deviation of the conditional one.
#[derive(Clone, Copy, Debug)]
pub struct RescaleCfg {
    /// How much of the rescaled result goes into the output.
    pub multiplier: f64,
}

impl CfgFunction for RescaleCfg {
    fn combine(&self, step: &Step<'_>, p: &Predictions) -> Result<Tensor> {
        let s = step.sigma;
        let q = s.hypot(1.0);
        let z = (step.x / (s * s + 1.0))?;
        let velocity = |y: &Tensor| (&z - y)? * (q / s);
        let (c, u) = (velocity(&p.cond)?, velocity(&p.uncond)?);
        let guided = (&u + ((&c - &u)? * step.cfg)?)?;
        let ratio = (deviation(&c)? / deviation(&guided)?)?;
        let rescaled = guided.broadcast_mul(&ratio)?;
        let mixed = ((rescaled * self.multiplier)? + (guided * (1.0 - self.multiplier))?)?;
        z - (mixed * (s / q))?
    }
}

/// Standard deviation of each item, with Bessel's correction.
fn deviation(t: &Tensor) -> Result<Tensor> {
    let axes = item_axes(t);
    let count = t.elem_count() as f64 / t.dim(0)?.max(1) as f64;
    let mean = (t.sum_keepdim(axes.as_slice())? / count)?;
    (t.broadcast_sub(&mean)?.sqr()?.sum_keepdim(axes.as_slice())? / (count - 1.0))?.sqrt()
}

/// Guidance whose norm is held near the conditional prediction's (Lumina-Image 2.0, arXiv 2503.21758).
#[derive(Clone, Copy, Debug)]
pub struct RenormCfg {
    /// Guidance only below this noise level.
    pub cfg_trunc: f64,
    /// Largest norm, in multiples of the conditional prediction's; 0: no limit.
    pub renorm_cfg: f64,
}

impl CfgFunction for RenormCfg {
    fn combine(&self, step: &Step<'_>, p: &Predictions) -> Result<Tensor> {
        if step.sigma >= self.cfg_trunc {
            return Ok(p.cond.clone());
        }
        let channels = p.cond.dim(1)?;
        let guided = step.latent_channels.min(channels);
        let part = |t: &Tensor| t.narrow(1, 0, guided);
        let cond = part(&p.cond)?;
        let parts = Predictions { cond: cond.clone(), uncond: part(&p.uncond)?, ..p.clone() };
        let mut denoised = plain(&parts, step.cfg)?;
        if self.renorm_cfg > 0.0 {
            let axes = item_axes(&denoised);
            let limit = (norm(&cond, &axes)? * self.renorm_cfg)?;
            let found = norm(&denoised, &axes)?;
            let ratio = found.ge(&limit)?.where_cond(&(limit / &found)?, &found.ones_like()?)?;
            denoised = denoised.broadcast_mul(&ratio)?;
        }
        if guided < channels {
            denoised = Tensor::cat(&[&denoised, &p.cond.narrow(1, guided, channels - guided)?], 1)?;
        }
        Ok(denoised)
    }
}

/// A scale of its own for every item of the batch (the frames of a video).
fn per_item(p: &Predictions, scale: impl Fn(f32) -> f32) -> Result<Tensor> {
    let batch = p.cond.dim(0)?;
    let position = |i: usize| if batch > 1 { i as f32 / (batch - 1) as f32 } else { 0.0 };
    let scales: Vec<f32> = (0..batch).map(|i| scale(position(i))).collect();
    let mut shape = vec![1; p.cond.rank()];
    shape[0] = batch;
    let scales = Tensor::from_vec(scales, shape, p.cond.device())?;
    &p.uncond + (&p.cond - &p.uncond)?.broadcast_mul(&scales)?
}

/// Scales that grow evenly over the frames (arXiv 2311.15127, appendix D).
#[derive(Clone, Copy, Debug)]
pub struct LinearCfg {
    /// Scale of the first frame.
    pub min_cfg: f64,
}

impl CfgFunction for LinearCfg {
    fn combine(&self, step: &Step<'_>, p: &Predictions) -> Result<Tensor> {
        let (min, max) = (self.min_cfg as f32, step.cfg as f32);
        per_item(p, |t| min + (max - min) * t)
    }
}

/// Scales that grow to the middle frame's and fall again (arXiv 2403.12008).
#[derive(Clone, Copy, Debug)]
pub struct TriangleCfg {
    /// Scale of the first and last frame.
    pub min_cfg: f64,
}

impl CfgFunction for TriangleCfg {
    fn combine(&self, step: &Step<'_>, p: &Predictions) -> Result<Tensor> {
        let (min, max) = (self.min_cfg as f32, step.cfg as f32);
        per_item(p, |t| 2.0 * (t - (t + 0.5).floor()).abs() * (max - min) + min)
    }
}

/// Perpendicular negative guidance as a patch (arXiv 2304.04968).
#[derive(Clone, Debug)]
pub struct PerpNeg {
    /// The empty prompt.
    pub empty: Conditioning,
    /// Scale of the negative direction.
    pub neg_scale: f64,
}

impl CfgFunction for PerpNeg {
    fn combine(&self, step: &Step<'_>, p: &Predictions) -> Result<Tensor> {
        let empty = (step.evaluate)(&self.empty)?;
        perp_neg(&p.cond, &p.uncond, &empty, step.cfg, self.neg_scale)
    }
}

/// `E + g (a - n b')` with a = C - E, b = U - E, and b' the part of b perpendicular to a. The projection is over the
/// whole batch.
///
/// # Errors
/// If shapes differ.
pub fn perp_neg(cond: &Tensor, uncond: &Tensor, empty: &Tensor, cfg: f64, neg_scale: f64) -> Result<Tensor> {
    let (a, b) = ((cond - empty)?, (uncond - empty)?);
    let along = dot_all(&b, &a)? / dot_all(&a, &a)?;
    let perpendicular = (b - (&a * along)?)?;
    empty + ((a - (perpendicular * neg_scale)?)? * cfg)?
}
