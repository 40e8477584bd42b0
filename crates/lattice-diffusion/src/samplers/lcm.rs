//! Consistency sampling: jump to the prediction, noise it again.

use candle_core::Tensor;
use lattice_media::resize::{Crop, Method, common_upscale};

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

/// Consistency sampling that enlarges the latent between steps. One model call per step.
#[derive(Clone, Copy, Debug)]
pub struct LcmUpscale {
    /// Final size over initial size.
    pub scale_ratio: f64,
    /// Number of enlarging steps; negative is half of all.
    pub scale_steps: i64,
    /// How the latent is resized.
    pub method: Method,
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
        // The reference draws noise in the memory order of its latent. Spherical resizing leaves the channels of a batch last,
        // and so they stay.
        let batch = x.rank() == 4 && x.dim(0)? > 1;
        let mut channels_last = false;
        for (i, (s, s1)) in run.steps().into_iter().enumerate() {
            let denoised = run.denoise(&x, s)?;
            run.report(i, s, &x, &denoised)?;
            x = denoised;
            if let Some(factor) = factors.get(i) {
                let scaled = |size: usize| (size as f64 * factor).round_ties_even().max(1.0) as usize;
                x = common_upscale(&x, scaled(width), scaled(height), self.method, Crop::Disabled)?;
                channels_last = batch && self.method == Method::Bislerp;
            }
            if s1 > 0.0 {
                let noise = if channels_last {
                    run.initial_stream_noise_channels_last(&x)?
                } else {
                    run.initial_stream_noise(&x)?
                };
                x = lincomb(&[(1.0, &x), (s1, &noise)])?;
            }
        }
        Ok(x)
    }
}
