//! Quantiles of the beta distribution.

use super::ScheduleError;
use crate::ModelSampling;

/// Table entries at the beta distribution's quantiles of equally spaced shares ("Beta Sampling is All You Need",
/// arXiv 2407.12173). Equal neighbours count once, so there may be fewer steps than asked.
pub(super) fn beta_schedule(
    model: &ModelSampling,
    steps: usize,
    alpha: f64,
    beta: f64,
) -> Result<Vec<f32>, ScheduleError> {
    for (name, value) in [("alpha", alpha), ("beta", beta)] {
        if !(value.is_finite() && value > 0.0) {
            return Err(ScheduleError::Parameter { name, value });
        }
    }
    let table = model.sigmas();
    let distribution = Beta::new(alpha, beta);
    let mut indices: Vec<usize> = (0..steps)
        .map(|k| {
            let share = 1.0 - k as f64 / steps as f64;
            (distribution.quantile(share) * (table.len() - 1) as f64).round_ties_even() as usize
        })
        .collect();
    indices.dedup();
    Ok(indices.iter().filter_map(|&i| table.get(i).copied()).chain([0.0]).collect())
}

/// A beta distribution.
struct Beta {
    a: f64,
    b: f64,
    /// ln B(a, b).
    log_norm: f64,
}

impl Beta {
    fn new(a: f64, b: f64) -> Self {
        Self { a, b, log_norm: libm::lgamma(a) + libm::lgamma(b) - libm::lgamma(a + b) }
    }

    /// The regularised incomplete beta function I_x(a, b) (DLMF 8.17).
    fn cumulative(&self, x: f64) -> f64 {
        if x <= 0.0 {
            return 0.0;
        }
        if x >= 1.0 {
            return 1.0;
        }
        let front = |a: f64, b: f64, x: f64| (a * x.ln() + b * (-x).ln_1p() - self.log_norm).exp() / a;
        // The fraction converges fast left of the mean; beyond it the reflected one does.
        if x < (self.a + 1.0) / (self.a + self.b + 2.0) {
            front(self.a, self.b, x) * continued_fraction(self.a, self.b, x)
        } else {
            1.0 - front(self.b, self.a, 1.0 - x) * continued_fraction(self.b, self.a, 1.0 - x)
        }
    }

    /// The x with I_x(a, b) = p, by bisection to the last bit: I is monotone, and no start value can mislead it.
    fn quantile(&self, p: f64) -> f64 {
        if p <= 0.0 {
            return 0.0;
        }
        if p >= 1.0 {
            return 1.0;
        }
        if self.a == self.b && p == 0.5 {
            // Half of an odd table length is a tie, which the last bit decides: the reference's lies above the exact
            // value, except for the uniform distribution.
            return if self.a == 1.0 { 0.5 } else { 0.5f64.next_up() };
        }
        let (mut low, mut high) = (0.0, 1.0);
        loop {
            let middle = f64::midpoint(low, high);
            if middle <= low || middle >= high {
                return middle;
            }
            if self.cumulative(middle) < p {
                low = middle;
            } else {
                high = middle;
            }
            if high - low <= 1e-15 * high {
                return middle;
            }
        }
    }
}

/// The fraction of DLMF 8.17.22 by Lentz's method.
fn continued_fraction(a: f64, b: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let guard = |v: f64| if v.abs() < TINY { TINY } else { v };
    let mut c = 1.0;
    let mut d = 1.0 / guard(1.0 - (a + b) * x / (a + 1.0));
    let mut value = d;
    for m in 1..1000 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut change = 1.0;
        for coefficient in [even, odd] {
            d = 1.0 / guard(1.0 + coefficient * d);
            c = guard(1.0 + coefficient / c);
            change = c * d;
            value *= change;
        }
        if (change - 1.0).abs() < 1e-16 {
            break;
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_forms() {
        for p in [0.01, 0.2, 0.5, 0.77, 0.999] {
            // B(1, 1) is uniform, B(1/2, 1/2) the arcsine law, B(2, 1) has I_x = x^2.
            assert!((Beta::new(1.0, 1.0).quantile(p) - p).abs() < 1e-13);
            let arcsine = (std::f64::consts::FRAC_PI_2 * p).sin().powi(2);
            assert!((Beta::new(0.5, 0.5).quantile(p) - arcsine).abs() < 1e-13, "{p}");
            assert!((Beta::new(2.0, 1.0).quantile(p) - p.sqrt()).abs() < 1e-13);
        }
    }

    #[test]
    fn extreme_shapes_stay_in_range() {
        for (a, b) in [(1e-3, 50.0), (50.0, 1e-3), (1e4, 1e4), (0.6, 0.6)] {
            let beta = Beta::new(a, b);
            let quantiles: Vec<f64> = (0..=20).map(|k| beta.quantile(f64::from(k) / 20.0)).collect();
            assert!(quantiles.iter().all(|x| (0.0..=1.0).contains(x)), "{a} {b} {quantiles:?}");
            assert!(quantiles.is_sorted(), "{a} {b}");
        }
    }
}
