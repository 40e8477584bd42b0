//! DPM-Solver of orders 1 to 3 on the noise prediction, with fixed and with adaptive steps (Lu et al., arXiv
//! 2206.00927), in t = -ln(sigma).

use candle_core::{DType, Tensor};

use super::math::ancestral;
use super::{Result, SampleError, Sampler, SamplerRun};
use crate::lincomb::{lincomb, map_elements};

/// A third of a step.
const THIRD: f32 = 1.0 / 3.0;

/// sigma(t).
fn sigma_at(t: f64) -> f64 {
    f64::from((-t).exp() as f32)
}

/// The end of the run: its last level above 0. The step to 0 is never made.
fn end_points(run: &SamplerRun<'_>, sampler: &'static str) -> Result<(f64, f64)> {
    let sigmas = run.sigmas();
    let (Some(&first), Some(&last)) = (sigmas.first(), sigmas.last()) else {
        return Err(run.bad_sigmas(sampler));
    };
    let last = if last == 0.0 { sigmas[sigmas.len().saturating_sub(2)] } else { last };
    if !(first > 0.0 && last > 0.0 && first.is_finite()) {
        return Err(run.bad_sigmas(sampler));
    }
    let time = |sigma: f64| f64::from(-sigma.ln() as f32);
    Ok((time(first), time(last)))
}

/// Evaluations at the start of a step, shared by the orders that are made of them. The arithmetic is single precision with a rounding
/// after every operation, as the reference's: at high noise two orders differ by roundings alone, and the step size of the adaptive
/// solver follows that difference.
struct Evaluations<'x> {
    x: &'x Tensor,
    t: f32,
    h: f32,
    /// Noise prediction at t.
    e: Tensor,
}

/// sigma(t) in single precision.
fn level(t: f32) -> f32 {
    f64::from(-t).exp() as f32
}

/// e^h - 1 in single precision.
fn growth(h: f32) -> f32 {
    f64::from(h).exp_m1() as f32
}

/// (x - D)/sigma.
fn noise_prediction(x: &Tensor, denoised: &Tensor, sigma: f32) -> Result<Tensor> {
    let wide = f64::from(sigma);
    let otherwise = || lincomb(&[(1.0 / wide, x), (-1.0 / wide, denoised)]);
    Ok(map_elements([x, denoised], |[x, d]| (x - d) / sigma, otherwise)?)
}

impl<'x> Evaluations<'x> {
    fn new(x: &'x Tensor, t: f64, to: f64, denoised: &Tensor) -> Result<Self> {
        let (t, to) = (t as f32, to as f32);
        Ok(Self { x, t, h: to - t, e: noise_prediction(x, denoised, level(t))? })
    }

    fn evaluate(&self, run: &mut SamplerRun<'_>, u: &Tensor, share: f32) -> Result<Tensor> {
        let sigma = level(self.t + share * self.h);
        noise_prediction(u, &run.denoise(u, f64::from(sigma))?, sigma)
    }

    /// x - a e.
    fn moved(&self, a: f32) -> Result<Tensor> {
        let otherwise = || lincomb(&[(1.0, self.x), (f64::from(-a), &self.e)]);
        Ok(map_elements([self.x, &self.e], |[x, e]| x - a * e, otherwise)?)
    }

    /// x - a e - b (e1 - e).
    fn bent(&self, a: f32, b: f32, e1: &Tensor) -> Result<Tensor> {
        let otherwise =
            || lincomb(&[(1.0, self.x), (f64::from(b) - f64::from(a), &self.e), (f64::from(-b), e1)]);
        Ok(map_elements([self.x, &self.e, e1], |[x, e, e1]| x - a * e - b * (e1 - e), otherwise)?)
    }

    fn first_order(&self) -> Result<Tensor> {
        self.moved(level(self.t + self.h) * growth(self.h))
    }

    /// Noise prediction at the share `r1` of the step.
    fn at_share(&self, run: &mut SamplerRun<'_>, r1: f32) -> Result<Tensor> {
        let part = r1 * self.h;
        let u = self.moved(level(self.t + part) * growth(part))?;
        self.evaluate(run, &u, r1)
    }

    fn second_order(&self, e1: &Tensor, r1: f32) -> Result<Tensor> {
        let (end, growth) = (level(self.t + self.h), growth(self.h));
        self.bent(end * growth, end / (2.0 * r1) * growth, e1)
    }

    /// With r1 = 1/3, r2 = 2/3.
    fn third_order(&self, run: &mut SamplerRun<'_>, e1: &Tensor) -> Result<Tensor> {
        const R2: f32 = 2.0 / 3.0;
        // r2 / r1.
        const RATIO: f32 = 2.0;
        let part = R2 * self.h;
        let middle = level(self.t + part);
        let u2 = self.bent(middle * growth(part), middle * RATIO * (growth(part) / part - 1.0), e1)?;
        let e2 = self.evaluate(run, &u2, R2)?;
        let end = level(self.t + self.h);
        self.bent(end * growth(self.h), end / R2 * (growth(self.h) / self.h - 1.0), &e2)
    }
}

/// DPM-Solver-fast: as many model calls as the schedule has steps, spent on steps of third order as far as possible.
#[derive(Clone, Copy, Debug, Default)]
pub struct DpmFast;

impl Sampler for DpmFast {
    fn sample(&self, run: &mut SamplerRun<'_>, mut x: Tensor) -> Result<Tensor> {
        let calls = run.step_count();
        if calls == 0 {
            return Ok(x);
        }
        let (start, end) = end_points(run, "dpm_fast")?;
        let segments = calls / 3 + 1;
        let mut orders = vec![3; segments];
        if calls.is_multiple_of(3) {
            orders.truncate(segments.saturating_sub(2));
            orders.extend([2, 1]);
        } else {
            orders[segments - 1] = calls % 3;
        }
        for (i, order) in orders.into_iter().enumerate() {
            let at = |i: usize| start + (end - start) * i as f64 / segments as f64;
            let (t, to) = (at(i), at(i + 1));
            let denoised = run.denoise(&x, sigma_at(t))?;
            run.report(i, sigma_at(t), &x, &denoised)?;
            let step = Evaluations::new(&x, t, to, &denoised)?;
            let evolved = match order {
                1 => step.first_order()?,
                2 => {
                    let e1 = step.at_share(run, 0.5)?;
                    step.second_order(&e1, 0.5)?
                }
                _ => {
                    let e1 = step.at_share(run, THIRD)?;
                    step.third_order(run, &e1)?
                }
            };
            // Drawn though nothing is added at eta 0: the stream is where the reference's is.
            run.step_noise(&evolved)?;
            x = evolved;
        }
        Ok(x)
    }
}

/// DPM-Solver-12 and -23: the step size follows the difference between two orders. Model calls per attempted step:
/// its order.
#[derive(Clone, Copy, Debug)]
pub struct DpmAdaptive {
    /// Higher order, 2 or 3.
    pub order: usize,
    /// Relative tolerance.
    pub rtol: f64,
    /// Absolute tolerance.
    pub atol: f64,
    /// First step in -ln(sigma).
    pub h_init: f64,
    /// Proportional coefficient of the controller.
    pub pcoeff: f64,
    /// Integral coefficient.
    pub icoeff: f64,
    /// Derivative coefficient.
    pub dcoeff: f64,
    /// Factor above which a step is accepted.
    pub accept_safety: f64,
    /// Share of stochasticity.
    pub eta: f64,
    /// Factor of the noise.
    pub s_noise: f64,
}

impl Default for DpmAdaptive {
    fn default() -> Self {
        Self {
            order: 3,
            rtol: 0.05,
            atol: 0.0078,
            h_init: 0.05,
            pcoeff: 0.0,
            icoeff: 1.0,
            dcoeff: 0.0,
            accept_safety: 0.81,
            eta: 0.0,
            s_noise: 1.0,
        }
    }
}

/// PID control of the step size (Söderlind 2003, "Digital Filters in Adaptive Time-Stepping").
struct Controller {
    b: [f64; 3],
    safety: f64,
    /// Inverse errors, newest first.
    history: Option<[f64; 3]>,
}

impl Controller {
    fn new(settings: &DpmAdaptive) -> Self {
        let DpmAdaptive { pcoeff: p, icoeff: i, dcoeff: d, .. } = *settings;
        let order = if settings.eta > 0.0 { 1.5 } else { settings.order as f64 };
        let b = [(p + i + d) / order, -(p + 2.0 * d) / order, d / order];
        Self { b, safety: settings.accept_safety, history: None }
    }

    /// Whether the step is accepted, and the factor of the next.
    fn propose(&mut self, error: f64) -> (bool, f64) {
        let inverse = 1.0 / (error + 1e-8);
        let [v0, v1, v2] = self.history.get_or_insert([inverse; 3]);
        *v0 = inverse;
        let [b0, b1, b2] = self.b;
        let factor = 1.0 + (v0.powf(b0) * v1.powf(b1) * v2.powf(b2) - 1.0).atan();
        let accepted = factor >= self.safety;
        if accepted {
            (*v2, *v1) = (*v1, *v0);
        }
        (accepted, factor)
    }
}

impl DpmAdaptive {
    /// Root mean square of (low - high) over the tolerance of every element.
    fn error(&self, low: &Tensor, high: &Tensor, previous: &Tensor) -> Result<f64> {
        let values =
            |t: &Tensor| -> Result<Vec<f32>> { Ok(t.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?) };
        let (low, high, previous) = (values(low)?, values(high)?, values(previous)?);
        let (atol, rtol) = (self.atol as f32, self.rtol as f32);
        let square = |((l, h), p): ((&f32, &f32), &f32)| {
            let tolerance = atol.max(rtol * l.abs().max(p.abs()));
            f64::from((l - h) / tolerance).powi(2)
        };
        let sum: f64 = low.iter().zip(&high).zip(&previous).map(square).sum();
        Ok((sum / low.len().max(1) as f64).sqrt())
    }
}

impl Sampler for DpmAdaptive {
    fn sample(&self, run: &mut SamplerRun<'_>, mut x: Tensor) -> Result<Tensor> {
        const NAME: &str = "dpm_adaptive";
        if run.step_count() == 0 {
            return Ok(x);
        }
        if !(2..=3).contains(&self.order) {
            return Err(SampleError::Option { sampler: NAME, name: "order", value: self.order as f64 });
        }
        let (mut t, end) = end_points(run, NAME)?;
        let mut controller = Controller::new(self);
        let mut previous_low = x.clone();
        let mut h = self.h_init.abs();
        let mut accepted_steps = 0;
        while t < end - 1e-5 {
            // Times are single precision, as the levels they stand for.
            let to = end.min(f64::from(t as f32 + h as f32));
            if !(to > t && h.is_finite()) {
                return Err(SampleError::Diverged { step: h, sigma: sigma_at(t) });
            }
            let (target, up) = if self.eta > 0.0 {
                let (down, _) = ancestral(sigma_at(t), sigma_at(to), self.eta);
                let target = end.min(-down.ln());
                let variance = sigma_at(to).powi(2) - sigma_at(target).powi(2);
                (target, variance.sqrt())
            } else {
                (to, 0.0)
            };
            let denoised = run.denoise(&x, sigma_at(t))?;
            let step = Evaluations::new(&x, t, target, &denoised)?;
            let (low, high) = if self.order == 2 {
                let low = step.first_order()?;
                let e1 = step.at_share(run, 0.5)?;
                (low, step.second_order(&e1, 0.5)?)
            } else {
                let e1 = step.at_share(run, THIRD)?;
                (step.second_order(&e1, THIRD)?, step.third_order(run, &e1)?)
            };
            let (accepted, factor) = controller.propose(self.error(&low, &high, &previous_low)?);
            run.report(accepted_steps, sigma_at(t), &x, &denoised)?;
            if accepted {
                let noise = run.step_noise(&x)?;
                previous_low = low;
                x = lincomb(&[(1.0, &high), (self.s_noise * up, &noise)])?;
                t = to;
                accepted_steps += 1;
            }
            h *= factor;
        }
        Ok(x)
    }
}
