//! DPM-Solver++ SDE: a single-step stochastic solver with Brownian noise (Lu et al., arXiv 2211.01095).

use candle_core::Tensor;

use super::math::{alpha, ancestral};
use super::{Result, Sampler, SamplerRun};
use crate::{ModelSampling, lincomb};

/// DPM-Solver++(2S) with noise in both stages. Two model calls per step.
#[derive(Clone, Copy, Debug)]
pub struct DpmppSde {
    /// Share of stochasticity.
    pub eta: f64,
    /// Factor of the noise.
    pub s_noise: f64,
    /// Where the middle evaluation lies, as a share of the step in lambda.
    pub r: f64,
}

impl Default for DpmppSde {
    fn default() -> Self {
        Self { eta: 1.0, s_noise: 1.0, r: 0.5 }
    }
}

/// The level at the share `r` of a step in lambda. In single precision, step by step, as the noise is read at exactly
/// this level.
fn middle_sigma(model: &ModelSampling, s: f64, s1: f64, r: f64) -> f64 {
    let flow = model.is_flow();
    let ln = |v: f32| f64::from(v).ln() as f32;
    let exp = |v: f32| f64::from(v).exp() as f32;
    let lambda = |s: f64| {
        let s = s as f32;
        if flow { -ln(s / (1.0 - s)) } else { -ln(s) }
    };
    let (l0, l1) = (lambda(s), lambda(s1));
    let middle = l0 + r as f32 * (l1 - l0);
    f64::from(if flow { 1.0 / (1.0 + exp(middle)) } else { exp(-middle) })
}

impl Sampler for DpmppSde {
    fn sample(&self, run: &mut SamplerRun<'_>, mut x: Tensor) -> Result<Tensor> {
        let model = run.model();
        let noisy = self.eta > 0.0 && self.s_noise > 0.0;
        for (i, (s, s1)) in run.steps_with_finite_snr().into_iter().enumerate() {
            let denoised = run.denoise(&x, s)?;
            run.report(i, s, &x, &denoised)?;
            if s1 == 0.0 {
                x = denoised;
                continue;
            }
            let (l0, l1) = (model.half_log_snr(s), model.half_log_snr(s1));
            let middle_lambda = l0 + self.r * (l1 - l0);
            let middle = middle_sigma(model, s, s1, self.r);
            let share = 1.0 / (2.0 * self.r);

            // Each stage: an exponential step from (s, x) to `to`, then noise.
            let stage = |run: &mut SamplerRun<'_>,
                         to: f64,
                         lambda: f64,
                         targets: &[(f64, &Tensor)]|
             -> Result<Tensor> {
                let (down, up) = ancestral((-l0).exp(), (-lambda).exp(), self.eta);
                let h = -down.ln() - l0;
                let scale = alpha(model, to);
                let gain = -scale * (-h).exp_m1();
                let mut terms = vec![(scale / alpha(model, s) * (-h).exp(), &x)];
                terms.extend(targets.iter().map(|(weight, d)| (gain * weight, *d)));
                if !noisy {
                    return Ok(lincomb(&terms)?);
                }
                let noise = run.brownian_noise(&x, s, to)?;
                terms.push((scale * self.s_noise * up, &noise));
                Ok(lincomb(&terms)?)
            };
            let x2 = stage(run, middle, middle_lambda, &[(1.0, &denoised)])?;
            let denoised2 = run.denoise(&x2, middle)?;
            x = stage(run, s1, l1, &[(1.0 - share, &denoised), (share, &denoised2)])?;
        }
        Ok(x)
    }
}
