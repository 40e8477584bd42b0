//! DPM-Solver++(2S) with ancestral noise (Lu et al., arXiv 2211.01095, algorithm 1).

use candle_core::Tensor;

use super::math::{ancestral, euler_step, flow_ancestral};
use super::{Result, Sampler, SamplerRun};
use crate::lincomb;

/// Single-step second-order solver on the denoised prediction. Two model calls per step.
#[derive(Clone, Copy, Debug)]
pub struct Dpmpp2sAncestral {
    /// Share of stochasticity.
    pub eta: f64,
    /// Factor of the noise.
    pub s_noise: f64,
    /// Move along the unconditional prediction (CFG++, arXiv 2406.08070).
    pub cfg_pp: bool,
}

impl Default for Dpmpp2sAncestral {
    fn default() -> Self {
        Self { eta: 1.0, s_noise: 1.0, cfg_pp: false }
    }
}

impl Dpmpp2sAncestral {
    /// D and x as the linear terms see it: with CFG++, x + D - U.
    fn predict(&self, run: &mut SamplerRun<'_>, at: &Tensor, s: f64) -> Result<(Tensor, Option<Tensor>)> {
        if self.cfg_pp {
            let (denoised, uncond) = run.denoise_both(at, s)?;
            Ok((denoised, Some(uncond)))
        } else {
            Ok((run.denoise(at, s)?, None))
        }
    }

    fn flow_step(
        &self,
        run: &mut SamplerRun<'_>,
        x: &Tensor,
        denoised: &Tensor,
        (s, s1): (f64, f64),
    ) -> Result<Tensor> {
        let model = run.model();
        let step = flow_ancestral(s, s1, self.eta);
        // At sigma 1 lambda is infinite; the middle is then taken just below.
        let middle = if s == 1.0 {
            0.9999
        } else {
            let lambda = f64::midpoint(model.half_log_snr(s), model.half_log_snr(step.down));
            model.sigma_of_half_log_snr(lambda)
        };
        let u = euler_step(x, denoised, s, middle)?;
        let denoised2 = run.denoise(&u, middle)?;
        let ratio = step.down / s;
        if self.eta <= 0.0 {
            return Ok(lincomb(&[(ratio, x), (1.0 - ratio, &denoised2)])?);
        }
        let noise = run.step_noise(x)?;
        let scale = step.rescale;
        Ok(lincomb(&[
            (scale * ratio, x),
            (scale * (1.0 - ratio), &denoised2),
            (self.s_noise * step.up, &noise),
        ])?)
    }
}

impl Sampler for Dpmpp2sAncestral {
    fn sample(&self, run: &mut SamplerRun<'_>, mut x: Tensor) -> Result<Tensor> {
        let flow = run.model().is_flow() && !self.cfg_pp;
        for (i, (s, s1)) in run.steps().into_iter().enumerate() {
            let (denoised, uncond) = self.predict(run, &x, s)?;
            run.report(i, s, &x, &denoised)?;
            if flow {
                x = if s1 == 0.0 {
                    euler_step(&x, &denoised, s, s1)?
                } else {
                    self.flow_step(run, &x, &denoised, (s, s1))?
                };
                continue;
            }
            let (down, up) = ancestral(s, s1, self.eta);
            let kept = if down == 0.0 {
                match &uncond {
                    Some(_) => denoised.clone(),
                    None => euler_step(&x, &denoised, s, down)?,
                }
            } else {
                let h = s.ln() - down.ln();
                let middle = (-(-s.ln() + h / 2.0)).exp();
                let (first, gain) = (middle / s, -(-h / 2.0).exp_m1());
                let x2 = match &uncond {
                    None => lincomb(&[(first, &x), (gain, &denoised)])?,
                    Some(uncond) => lincomb(&[(first, &x), (first + gain, &denoised), (-first, uncond)])?,
                };
                let (denoised2, uncond2) = self.predict(run, &x2, middle)?;
                let (ratio, gain) = (down / s, -(-h).exp_m1());
                match &uncond2 {
                    None => lincomb(&[(ratio, &x), (gain, &denoised2)])?,
                    Some(uncond2) => {
                        lincomb(&[(ratio, &x), (ratio, &denoised), (-ratio, uncond2), (gain, &denoised2)])?
                    }
                }
            };
            x = if s1 > 0.0 {
                let noise = run.step_noise(&x)?;
                lincomb(&[(1.0, &kept), (self.s_noise * up, &noise)])?
            } else {
                kept
            };
        }
        Ok(x)
    }
}
