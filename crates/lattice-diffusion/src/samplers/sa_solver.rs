//! Stochastic Adams solver (SA-Solver, Xue et al., arXiv 2309.05019): predictor and corrector of the variance-controlled
//! diffusion equation on the denoised prediction.

use candle_core::Tensor;

use super::math::{alpha, integrate, solve};
use super::{Result, SampleError, Sampler, SamplerRun};
use crate::{ModelSampling, lincomb};

/// Highest order whose equations are solved.
const MAX_ORDER: usize = 16;

/// Between which noise levels [`SaSolver`] is stochastic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SdeInterval {
    /// Those after these shares of the run's model, 0 (start) to 1 (end).
    Shares {
        /// First.
        start: f64,
        /// Last.
        end: f64,
    },
    /// These, both included.
    Sigmas {
        /// Highest.
        start: f64,
        /// Lowest.
        end: f64,
    },
}

impl SdeInterval {
    fn contains(self, model: &ModelSampling, s: f64) -> bool {
        let (start, end) = match self {
            Self::Shares { start, end } => (model.percent_to_sigma(start), model.percent_to_sigma(end)),
            Self::Sigmas { start, end } => (start, end),
        };
        start >= s && s >= end
    }
}

/// SA-Solver. One model call per step, two with `pece`.
#[derive(Clone, Copy, Debug)]
pub struct SaSolver {
    /// Stochasticity inside the interval, none outside.
    pub eta: f64,
    /// Where that is.
    pub interval: SdeInterval,
    /// Factor of the noise.
    pub s_noise: f64,
    /// Predictions that the predictor uses.
    pub predictor_order: usize,
    /// Predictions that the corrector uses; 0 is no corrector.
    pub corrector_order: usize,
    /// Evaluate again after correcting.
    pub pece: bool,
    /// Simplified coefficients at order 2.
    pub simple_order_2: bool,
}

impl Default for SaSolver {
    fn default() -> Self {
        Self {
            eta: 1.0,
            interval: SdeInterval::Shares { start: 0.2, end: 0.8 },
            s_noise: 1.0,
            predictor_order: 3,
            corrector_order: 4,
            pece: false,
            simple_order_2: false,
        }
    }
}

/// One interval, as predictor and corrector both see it.
struct Interval {
    s: f64,
    s1: f64,
    tau: f64,
    noise: Option<Tensor>,
}

impl SaSolver {
    fn tau(&self, model: &ModelSampling, s: f64) -> f64 {
        if self.interval.contains(model, s) { self.eta } else { 0.0 }
    }

    /// Weights of the predictions made at `lambdas` (oldest first) over an interval.
    fn weights(
        &self,
        model: &ModelSampling,
        interval: &Interval,
        lambdas: &[f64],
        corrector: bool,
    ) -> Vec<f64> {
        let (l, l1) = (model.half_log_snr(interval.s), model.half_log_snr(interval.s1));
        let (h, t) = (l1 - l, 1.0 + interval.tau * interval.tau);
        let scale = alpha(model, interval.s1);
        if let (true, &[older, newer]) = (self.simple_order_2, lambdas) {
            let gain = -scale * (-h * t).exp_m1();
            return if corrector {
                let new = scale * t * h / 2.0;
                vec![gain - new, new]
            } else {
                let old = scale * t * h * h / (2.0 * (older - newer));
                vec![old, gain - old]
            };
        }
        // Exactness for polynomials: sum_j b_j l_j^p = T e^(-T l1) integral e^(T u) u^p. Measured from l1, where powers
        // stay small.
        let count = lambdas.len();
        let moment = |p: usize| t * integrate(-h, 0.0, |u| (t * u).exp() * u.powi(p as i32));
        let rows = (0..count).map(|p| lambdas.iter().map(|l| (l - l1).powi(p as i32)).collect()).collect();
        solve(rows, (0..count).map(moment).collect()).iter().map(|b| scale * b).collect()
    }

    fn update(
        &self,
        model: &ModelSampling,
        interval: &Interval,
        x: &Tensor,
        weights: &[f64],
        predictions: &[Tensor],
    ) -> Result<Tensor> {
        let h = model.half_log_snr(interval.s1) - model.half_log_snr(interval.s);
        let tau2 = interval.tau * interval.tau;
        let mut terms = vec![(interval.s1 / interval.s * (-tau2 * h).exp(), x)];
        terms.extend(weights.iter().copied().zip(predictions));
        if let Some(noise) = &interval.noise {
            terms.push((interval.s1 * (-(-2.0 * tau2 * h).exp_m1()).sqrt() * self.s_noise, noise));
        }
        Ok(lincomb(&terms)?)
    }
}

/// The last `count` values.
fn tail<T>(values: &[T], count: usize) -> &[T] {
    &values[values.len().saturating_sub(count)..]
}

impl Sampler for SaSolver {
    fn sample(&self, run: &mut SamplerRun<'_>, mut x: Tensor) -> Result<Tensor> {
        for (name, order, least) in
            [("predictor_order", self.predictor_order, 1), ("corrector_order", self.corrector_order, 0)]
        {
            if !(least..=MAX_ORDER).contains(&order) {
                return Err(SampleError::Option { sampler: "sa_solver", name, value: order as f64 });
            }
        }
        let model = run.model();
        let levels = run.sigmas().len();
        let ends_in_zero = run.sigmas().last() == Some(&0.0);
        let (mut predictions, mut lambdas): (Vec<Tensor>, Vec<f64>) = (Vec::new(), Vec::new());
        let mut previous: Option<Interval> = None;
        let mut predicted = x.clone();
        for (i, (s, s1)) in run.steps_with_finite_snr().into_iter().enumerate() {
            let denoised = run.denoise(&predicted, s)?;
            run.report(i, s, &predicted, &denoised)?;
            predictions.push(denoised);
            lambdas.push(model.half_log_snr(s));

            let mut predictor = self.predictor_order.min(predictions.len());
            let mut corrector = self.corrector_order.min(predictions.len());
            if ends_in_zero {
                predictor = predictor.min((levels - 2 - i).max(1));
                corrector = corrector.min(levels - 1 - i);
            }
            x = match &previous {
                Some(interval) if corrector > 0 && (s1 != 0.0 || self.pece) => {
                    let weights = self.weights(model, interval, tail(&lambdas, corrector), true);
                    let corrected =
                        self.update(model, interval, &x, &weights, tail(&predictions, corrector))?;
                    if self.pece {
                        let again = run.denoise(&corrected, s)?;
                        predictions.pop();
                        predictions.push(again);
                    }
                    corrected
                }
                _ => predicted.clone(),
            };
            if s1 == 0.0 {
                if let Some(last) = predictions.last() {
                    predicted = last.clone();
                }
                x = predicted.clone();
                previous = None;
                continue;
            }
            let tau = self.tau(model, s1);
            let noise = if tau > 0.0 && self.s_noise > 0.0 { Some(run.step_noise(&x)?) } else { None };
            let interval = Interval { s, s1, tau, noise };
            let weights = self.weights(model, &interval, tail(&lambdas, predictor), false);
            predicted = self.update(model, &interval, &x, &weights, tail(&predictions, predictor))?;
            previous = Some(interval);

            // Older predictions than any order reaches are dropped.
            let kept = self.predictor_order.max(self.corrector_order);
            if predictions.len() > kept {
                predictions.drain(..predictions.len() - kept);
                lambdas.drain(..lambdas.len() - kept);
            }
        }
        Ok(predicted)
    }
}
