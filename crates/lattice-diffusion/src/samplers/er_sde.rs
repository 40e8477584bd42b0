//! Extended reverse-time stochastic equation (Cui et al., arXiv 2309.06169), up to third order.

use candle_core::Tensor;

use super::{Result, SampleError, Sampler, SamplerRun};
use crate::{ModelSampling, lincomb};

/// Points of the sums that stand for the integrals of the higher orders.
const POINTS: u32 = 200;

/// The noise scale function f(v) of [`ErSde`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ErSdeScaler {
    /// v (exp(v^0.3) + 10), the paper's recommendation.
    ErSde,
    /// v^(eta + 1): the usual reverse-time equation.
    ReverseTime {
        /// Share of stochasticity.
        eta: f64,
    },
    /// v: no noise.
    Ode,
}

impl ErSdeScaler {
    fn at(self, v: f64) -> f64 {
        match self {
            Self::ErSde => v * (v.powf(0.3).exp() + 10.0),
            Self::ReverseTime { eta } => v.powf(eta + 1.0),
            Self::Ode => v,
        }
    }
}

/// ER-SDE-Solver. One model call per step.
#[derive(Clone, Copy, Debug)]
pub struct ErSde {
    /// Noise scale function.
    pub scaler: ErSdeScaler,
    /// Factor of the noise.
    pub s_noise: f64,
    /// Highest order, 1 to 3.
    pub max_stage: usize,
}

impl Default for ErSde {
    fn default() -> Self {
        Self { scaler: ErSdeScaler::ErSde, s_noise: 1.0, max_stage: 3 }
    }
}

impl ErSde {
    /// The solver that a node's `solver_type` names: "ER-SDE", "Reverse-time SDE" or "ODE". The reverse-time equation
    /// without stochasticity is the ordinary one.
    pub fn of_solver(solver_type: &str, eta: f64, s_noise: f64, max_stage: usize) -> Option<Self> {
        let (scaler, s_noise) = match solver_type {
            "ER-SDE" => (ErSdeScaler::ErSde, s_noise),
            "Reverse-time SDE" if eta != 0.0 => (ErSdeScaler::ReverseTime { eta }, s_noise),
            "Reverse-time SDE" | "ODE" => (ErSdeScaler::Ode, 0.0),
            _ => return None,
        };
        Some(Self { scaler, s_noise, max_stage })
    }
}

/// e^-lambda: the noise-to-signal ratio.
fn noise_to_signal(model: &ModelSampling, s: f64) -> f64 {
    (-model.half_log_snr(s)).exp()
}

impl Sampler for ErSde {
    fn sample(&self, run: &mut SamplerRun<'_>, mut x: Tensor) -> Result<Tensor> {
        if !(1..=3).contains(&self.max_stage) {
            let value = self.max_stage as f64;
            return Err(SampleError::Option { sampler: "er_sde", name: "max_stage", value });
        }
        let model = run.model();
        let sigmas = run.sigmas_with_finite_snr();
        let mut old: Option<Tensor> = None;
        let mut old_difference: Option<Tensor> = None;
        for (i, (s, s1)) in run.steps_with_finite_snr().into_iter().enumerate() {
            let denoised = run.denoise(&x, s)?;
            run.report(i, s, &x, &denoised)?;
            if s1 == 0.0 {
                x = denoised;
                continue;
            }
            let stage = self.max_stage.min(i + 1);
            let (v, v1) = (noise_to_signal(model, s), noise_to_signal(model, s1));
            let earlier = |back: usize| noise_to_signal(model, sigmas[i - back]);
            let (alpha, alpha1) = (s / v, s1 / v1);
            let f1 = self.scaler.at(v1);
            let ratio = f1 / self.scaler.at(v);
            let (dv, step) = (v1 - v, (v - v1) / f64::from(POINTS));
            let sum = |weight: &dyn Fn(f64) -> f64| {
                let point = |k| v1 + f64::from(k) * step;
                step * (0..POINTS).map(|k| weight(point(k)) / self.scaler.at(point(k))).sum::<f64>()
            };
            let difference = match &old {
                Some(old) if stage >= 2 => {
                    let scale = 1.0 / (v - earlier(1));
                    Some(lincomb(&[(scale, &denoised), (-scale, old)])?)
                }
                _ => None,
            };
            let second = match (&difference, &old_difference) {
                (Some(new), Some(old)) if stage >= 3 => {
                    let scale = 2.0 / (v - earlier(2));
                    Some(lincomb(&[(scale, new), (-scale, old)])?)
                }
                _ => None,
            };
            let noise = if self.s_noise > 0.0 { Some(run.step_noise(&x)?) } else { None };
            let mut terms = vec![(alpha1 / alpha * ratio, &x), (alpha1 * (1.0 - ratio), &denoised)];
            if let Some(difference) = &difference {
                terms.push((alpha1 * (dv + sum(&|_| 1.0) * f1), difference));
            }
            if let Some(second) = &second {
                terms.push((alpha1 * (dv * dv / 2.0 + sum(&|p| p - v) * f1), second));
            }
            if let Some(noise) = &noise {
                let up = (v1 * v1 - v * v * ratio * ratio).sqrt();
                let up = if up.is_nan() { 0.0 } else { up };
                terms.push((alpha1 * self.s_noise * up, noise));
            }
            x = lincomb(&terms)?;
            old_difference = difference;
            old = Some(denoised);
        }
        Ok(x)
    }
}
