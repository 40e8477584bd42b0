//! Refined exponential solver, second-order multistep (Zhang et al., arXiv 2308.02157).

use candle_core::Tensor;

use super::math::{ancestral, euler_step};
use super::{Result, Sampler, SamplerRun};
use crate::lincomb;

/// RES multistep. One model call per step.
#[derive(Clone, Copy, Debug)]
pub struct ResMultistep {
    /// Share of stochasticity.
    pub eta: f64,
    /// Factor of the noise.
    pub s_noise: f64,
    /// Move along the unconditional prediction (CFG++, arXiv 2406.08070).
    pub cfg_pp: bool,
}

impl ResMultistep {
    /// Deterministic, or ancestral with eta 1.
    pub fn new(eta: f64, cfg_pp: bool) -> Self {
        Self { eta, s_noise: 1.0, cfg_pp }
    }
}

/// What a step leaves for the next.
struct Past {
    /// The prediction that is extrapolated: D, or U with CFG++.
    prediction: Tensor,
    /// Level it was made at.
    sigma: f64,
    /// Level that the deterministic part of the step went to.
    down: f64,
}

fn finite_or_zero(v: f64) -> f64 {
    if v.is_nan() { 0.0 } else { v }
}

impl Sampler for ResMultistep {
    fn sample(&self, run: &mut SamplerRun<'_>, mut x: Tensor) -> Result<Tensor> {
        let mut past: Option<Past> = None;
        for (i, (s, s1)) in run.steps().into_iter().enumerate() {
            let (denoised, uncond) = if self.cfg_pp {
                let (denoised, uncond) = run.denoise_both(&x, s)?;
                (denoised, Some(uncond))
            } else {
                (run.denoise(&x, s)?, None)
            };
            run.report(i, s, &x, &denoised)?;
            let (down, up) = ancestral(s, s1, self.eta);
            let kept = match (&past, &uncond) {
                (Some(past), _) if down != 0.0 => {
                    let h = s.ln() - down.ln();
                    let c2 = (past.down.ln() - past.sigma.ln()) / h;
                    let phi1 = (-h).exp_m1() / -h;
                    let phi2 = (phi1 - 1.0) / -h;
                    let b1 = finite_or_zero(phi1 - phi2 / c2);
                    let b2 = finite_or_zero(phi2 / c2);
                    let keep = (-h).exp();
                    match &uncond {
                        None => lincomb(&[(keep, &x), (h * b1, &denoised), (h * b2, &past.prediction)])?,
                        Some(uncond) => lincomb(&[
                            (keep, &x),
                            (keep, &denoised),
                            (h * b1 - keep, uncond),
                            (h * b2, &past.prediction),
                        ])?,
                    }
                }
                (_, None) => euler_step(&x, &denoised, s, down)?,
                (_, Some(uncond)) => {
                    let ratio = down / s;
                    lincomb(&[(1.0, &denoised), (ratio, &x), (-ratio, uncond)])?
                }
            };
            let added = self.s_noise * up;
            x = if s1 > 0.0 {
                // Drawn even where none is added: the reference does.
                let noise = run.step_noise(&x)?;
                if added == 0.0 { kept } else { lincomb(&[(1.0, &kept), (added, &noise)])? }
            } else {
                kept
            };
            past = Some(Past { prediction: uncond.unwrap_or(denoised), sigma: s, down });
        }
        Ok(x)
    }
}
