//! Consistency sampling: jump to the prediction, noise it again.

use std::fmt;
use std::sync::Arc;

use candle_core::Tensor;

use super::{Result, SampleError, Sampler, SamplerRun};
use crate::lincomb;

/// Multistep consistency sampling (Luo et al., arXiv 2310.04378, algorithm 3). One model call per step.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lcm;

impl Sampler for Lcm {
    fn sample(&self, run: &mut SamplerRun<'_>, mut x: Tensor) -> Result<Tensor> {
        for (i, (s, s1)) in run.steps().into_iter().enumerate() {
            let denoised = run.denoise(&x, s)?;
            run.report(i, s, &x, &denoised)?;
            x = if s1 > 0.0 {
                let noise = run.step_noise(&denoised)?;
                run.model().noise_scaling(s1, &noise, &denoised, false)?
            } else {
                denoised
            };
        }
        Ok(x)
    }
}

/// Resizes a latent to (height, width).
pub type Resize = Arc<dyn Fn(&Tensor, usize, usize) -> candle_core::Result<Tensor> + Send + Sync>;

/// Consistency sampling that enlarges the latent between steps. One model call per step.
#[derive(Clone)]
pub struct LcmUpscale {
    /// Final size over initial size.
    pub scale_ratio: f64,
    /// Number of enlarging steps; negative is half of all.
    pub scale_steps: i64,
    /// How the latent is resized.
    pub resize: Resize,
}

impl fmt::Debug for LcmUpscale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scale_ratio, scale_steps, .. } = self;
        f.debug_struct("LcmUpscale")
            .field("scale_ratio", scale_ratio)
            .field("scale_steps", scale_steps)
            .finish()
    }
}

impl LcmUpscale {
    /// The factors of the enlarging steps.
    fn factors(&self, levels: usize) -> Vec<f64> {
        let count = match usize::try_from(self.scale_steps) {
            Err(_) => (levels / 2 + 1).max(2),
            Ok(steps) => steps.saturating_add(1).min(levels + 1),
        };
        let step = (self.scale_ratio - 1.0) / count.saturating_sub(1).max(1) as f64;
        (1..count).map(|k| 1.0 + step * k as f64).collect()
    }
}

impl Sampler for LcmUpscale {
    fn sample(&self, run: &mut SamplerRun<'_>, mut x: Tensor) -> Result<Tensor> {
        if !(self.scale_ratio.is_finite() && self.scale_ratio > 0.0) {
            return Err(SampleError::Option {
                sampler: "LCM upscale",
                name: "scale_ratio",
                value: self.scale_ratio,
            });
        }
        let factors = self.factors(run.sigmas().len());
        let &[.., height, width] = x.dims() else {
            return Err(candle_core::Error::Msg("a latent has at least two axes".into()).into());
        };
        for (i, (s, s1)) in run.steps().into_iter().enumerate() {
            let denoised = run.denoise(&x, s)?;
            run.report(i, s, &x, &denoised)?;
            x = denoised;
            if let Some(factor) = factors.get(i) {
                let scaled = |size: usize| (size as f64 * factor).round_ties_even().max(1.0) as usize;
                x = (self.resize)(&x, scaled(height), scaled(width))?;
            }
            if s1 > 0.0 {
                let noise = run.initial_stream_noise(&x)?;
                x = lincomb(&[(1.0, &x), (s1, &noise)])?;
            }
        }
        Ok(x)
    }
}
