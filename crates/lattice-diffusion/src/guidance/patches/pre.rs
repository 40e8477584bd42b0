//! Changes to the predictions before guidance.

use std::sync::Mutex;

use candle_core::{Result, Tensor};
use lattice_kernels::ops::low_frequencies;

use super::{dot, item_axes, last_axes, norm};
use crate::guidance::patch::{PreCfg, Predictions, Step};
use crate::latent::Operation;

/// Tangential damping (arXiv 2503.18137): the unconditional noise keeps its component along the first right singular
/// vector of both noises.
#[derive(Clone, Copy, Debug)]
pub struct TangentialDampingCfg;

impl PreCfg for TangentialDampingCfg {
    fn apply(&self, step: &Step<'_>, p: &mut Predictions) -> Result<()> {
        if !p.uncond_evaluated {
            return Ok(());
        }
        let axes = item_axes(step.x);
        let (u, c) = ((step.x - &p.uncond)?, (step.x - &p.cond)?);
        let list = |t: Tensor| t.flatten_all()?.to_vec1::<f32>();
        let (uu, uc, cc) =
            (list(dot(&u, &u, &axes)?)?, list(dot(&u, &c, &axes)?)?, list(dot(&c, &c, &axes)?)?);
        // v = (w0 u + w1 c) / s with w the first eigenvector of the 2 by 2 Gram matrix and s^2 its eigenvalue, and
        // u.v = s w0; so the component is w0 (w0 u + w1 c).
        let vectors = uu.iter().zip(&uc).zip(&cc).map(|((&uu, &uc), &cc)| first_eigenvector(uu, uc, cc));
        let (of_u, of_c): (Vec<f32>, Vec<f32>) =
            vectors.map(|(w0, w1)| ((w0 * w0) as f32, (w0 * w1) as f32)).unzip();
        let mut shape = vec![1; step.x.rank()];
        shape[0] = of_u.len();
        let factor = |values: Vec<f32>| Tensor::from_vec(values, shape.clone(), step.x.device());
        let kept = (u.broadcast_mul(&factor(of_u)?)? + c.broadcast_mul(&factor(of_c)?)?)?;
        p.uncond = (step.x - kept)?;
        Ok(())
    }
}

/// Eigenvector of the larger eigenvalue of [[a, b], [b, c]], of length 1.
fn first_eigenvector(a: f32, b: f32, c: f32) -> (f64, f64) {
    let (a, b, c) = (f64::from(a), f64::from(b), f64::from(c));
    let angle = 0.5 * (2.0 * b).atan2(a - c);
    (angle.cos(), angle.sin())
}

/// Adaptive projected guidance (arXiv 2410.02416): the part of the guidance direction that is parallel to the
/// conditional prediction is scaled by itself, the whole limited in norm and given (negative) momentum.
#[derive(Debug)]
pub struct AdaptiveProjectedGuidance {
    eta: f64,
    norm_threshold: f64,
    momentum: f64,
    /// Running direction and the noise level it stems from. It belongs to the patch, not to a run: a second stage of
    /// sampling that goes on at a lower level goes on with the momentum too.
    running: Mutex<Option<(Tensor, f64)>>,
}

impl AdaptiveProjectedGuidance {
    /// Scale of the parallel part, largest norm (0: none), share of the last direction (0: none).
    pub fn new(eta: f64, norm_threshold: f64, momentum: f64) -> Self {
        Self { eta, norm_threshold, momentum, running: Mutex::new(None) }
    }

    /// The direction with the momentum of the earlier ones.
    fn with_momentum(&self, direction: Tensor, sigma: f64) -> Result<Tensor> {
        if self.momentum == 0.0 {
            return Ok(direction);
        }
        let mut running = self.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // A noise level that rises, or another shape, is the start of another run.
        let direction = match running.take() {
            Some((last, level)) if sigma <= level && last.shape() == direction.shape() => {
                ((last * self.momentum)? + direction)?
            }
            _ => direction,
        };
        *running = Some((direction.clone(), sigma));
        Ok(direction)
    }
}

impl PreCfg for AdaptiveProjectedGuidance {
    fn apply(&self, step: &Step<'_>, p: &mut Predictions) -> Result<()> {
        let mut direction = self.with_momentum((&p.cond - &p.uncond)?, step.sigma)?;
        let axes = last_axes(&direction);
        if self.norm_threshold > 0.0 {
            let length = norm(&direction, &axes)?;
            let scale = (length.recip()? * self.norm_threshold)?.minimum(1.0)?;
            direction = direction.broadcast_mul(&scale)?;
        }
        let unit = p.cond.broadcast_div(&norm(&p.cond, &axes)?.maximum(1e-12)?)?;
        let parallel = unit.broadcast_mul(&dot(&direction, &unit, &axes)?)?;
        let modified = ((&direction - &parallel)? + (parallel * self.eta)?)?;
        p.cond = ((&p.uncond + modified)? + ((&p.cond - &p.uncond)? / step.cfg)?)?;
        Ok(())
    }
}

/// An operation on latents, applied to the direction of guidance.
#[derive(Clone, Copy, Debug)]
pub struct OperationOnGuidance {
    /// The operation.
    pub operation: Operation,
}

impl PreCfg for OperationOnGuidance {
    fn apply(&self, _step: &Step<'_>, p: &mut Predictions) -> Result<()> {
        // Where U was not evaluated it is zero, and the operation is that on C.
        p.cond = (&p.uncond + self.operation.apply(&(&p.cond - &p.uncond)?)?)?;
        Ok(())
    }
}

/// Frequency-scaled guidance (FreSca, arXiv 2504.02154): low and high frequencies of the guidance direction are scaled
/// apart.
#[derive(Clone, Copy, Debug)]
pub struct FreSca {
    /// Factor of the low frequencies.
    pub scale_low: f64,
    /// Factor of the high ones.
    pub scale_high: f64,
    /// First frequency that counts as high.
    pub cutoff: usize,
}

impl PreCfg for FreSca {
    fn apply(&self, _step: &Step<'_>, p: &mut Predictions) -> Result<()> {
        if !p.uncond_evaluated {
            return Ok(());
        }
        let direction = (&p.cond - &p.uncond)?;
        let low = low_frequencies(&direction, self.cutoff)?;
        let scaled = ((direction * self.scale_high)? + (low * (self.scale_low - self.scale_high))?)?;
        p.cond = (&p.uncond + scaled)?;
        Ok(())
    }
}
