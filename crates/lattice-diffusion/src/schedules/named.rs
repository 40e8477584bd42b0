//! The schedulers that every model has, by name.

// The functions of the table have one signature, whether they can fail or not.
#![allow(clippy::unnecessary_wraps)]

use super::beta::beta_schedule;
use super::curves::{exponential, karras, terminated};
use super::linspace::linspace;
use super::{ScheduleError, checked_steps};
use crate::ModelSampling;

type Levels = fn(&ModelSampling, usize) -> Result<Vec<f32>, ScheduleError>;

/// A scheduler of [`SCHEDULERS`].
#[derive(Clone, Copy, Debug)]
pub struct Scheduler {
    /// Name, as workflows write it.
    pub name: &'static str,
    levels: Levels,
}

/// Every scheduler, in the order of the interface. A new one is a function and a line here.
pub const SCHEDULERS: &[Scheduler] = &[
    Scheduler { name: "simple", levels: simple },
    Scheduler { name: "sgm_uniform", levels: sgm_uniform },
    Scheduler { name: "karras", levels: |model, n| karras(n, model.sigma_min(), model.sigma_max(), 7.0) },
    Scheduler {
        name: "exponential",
        levels: |model, n| exponential(n, model.sigma_min(), model.sigma_max()),
    },
    Scheduler { name: "ddim_uniform", levels: ddim_uniform },
    Scheduler { name: "beta", levels: |model, n| beta_schedule(model, n, 0.6, 0.6) },
    Scheduler { name: "normal", levels: normal },
    Scheduler { name: "linear_quadratic", levels: linear_quadratic },
    Scheduler { name: "kl_optimal", levels: kl_optimal },
];

impl Scheduler {
    /// The scheduler of that name.
    pub fn named(name: &str) -> Result<Self, ScheduleError> {
        let found = SCHEDULERS.iter().find(|s| s.name == name).copied();
        found.ok_or_else(|| ScheduleError::UnknownScheduler(name.to_owned()))
    }

    /// Levels for `steps` steps over the model's whole range: usually `steps + 1` of them, ending in 0.
    pub fn sigmas(self, model: &ModelSampling, steps: usize) -> Result<Vec<f32>, ScheduleError> {
        (self.levels)(model, checked_steps(steps, 0)?)
    }
}

/// Entries of the model's table at equal distances, from the last.
fn simple(model: &ModelSampling, steps: usize) -> Result<Vec<f32>, ScheduleError> {
    let table = model.sigmas();
    let stride = table.len() as f64 / steps as f64;
    let entry = |k| {
        let back = (k as f64 * stride) as usize;
        table.len().checked_sub(1 + back).and_then(|i| table.get(i)).copied()
    };
    Ok((0..steps).filter_map(entry).chain([0.0]).collect())
}

/// Equal distances of time, the last being that to 0.
fn sgm_uniform(model: &ModelSampling, steps: usize) -> Result<Vec<f32>, ScheduleError> {
    Ok(terminated(times(model, steps + 1).take(steps).map(|t| model.sigma(f64::from(t)))))
}

/// Equal distances of time between the ends of the table.
fn normal(model: &ModelSampling, steps: usize) -> Result<Vec<f32>, ScheduleError> {
    let reaches_zero = model.sigma(f64::from(model.timestep(model.sigma_min()))).abs() <= 1e-5;
    if reaches_zero {
        return Ok(times(model, steps + 1).map(|t| model.sigma(f64::from(t)) as f32).collect());
    }
    Ok(terminated(times(model, steps).map(|t| model.sigma(f64::from(t)))))
}

fn times(model: &ModelSampling, count: usize) -> impl Iterator<Item = f32> {
    linspace(model.timestep(model.sigma_max()), model.timestep(model.sigma_min()), count)
}

/// Entries of the table at a whole distance, from the second: the times of DDIM (arXiv 2010.02502). There may be more
/// steps than asked.
fn ddim_uniform(model: &ModelSampling, steps: usize) -> Result<Vec<f32>, ScheduleError> {
    let table = model.sigmas();
    let mut steps = checked_steps(steps, 1)?;
    let reaches_zero = table.get(1).is_some_and(|s| s.abs() <= 1e-5);
    if reaches_zero {
        steps += 1;
    }
    let stride = (table.len() / steps).max(1);
    let mut sigmas: Vec<f32> = if reaches_zero { vec![] } else { vec![0.0] };
    sigmas.extend(table.iter().skip(1).step_by(stride));
    sigmas.reverse();
    Ok(sigmas)
}

/// The schedule of Mochi: half the steps walk linearly through the first 2.5 % of the noise, the rest quadratically
/// through what is left.
fn linear_quadratic(model: &ModelSampling, steps: usize) -> Result<Vec<f32>, ScheduleError> {
    const THRESHOLD: f64 = 0.025;
    let max = model.sigma_max();
    let n = checked_steps(steps, 1)?;
    if n == 1 {
        return Ok(vec![max as f32, 0.0]);
    }
    let linear = n / 2;
    let (m, q) = (linear as f64, (n - linear) as f64);
    let excess = m - THRESHOLD * n as f64;
    let a = excess / (m * q * q);
    let b = THRESHOLD / m - 2.0 * excess / (q * q);
    let c = a * m * m;
    let done = |i: usize| {
        let x = i as f64;
        if i < linear { x * THRESHOLD / m } else { a * x * x + b * x + c }
    };
    let level = |i| f64::from((1.0 - done(i)) as f32 * max as f32);
    Ok(terminated((0..n).map(level)))
}

/// Equal distances of the angle atan(sigma), optimal in Kullback-Leibler divergence for a Gaussian
/// (Align Your Steps, arXiv 2404.14507, theorem 3.1). One step is undefined, as in the reference.
fn kl_optimal(model: &ModelSampling, steps: usize) -> Result<Vec<f32>, ScheduleError> {
    let (min, max) = (model.sigma_min().atan() as f32, model.sigma_max().atan() as f32);
    let last = steps as f32 - 1.0;
    Ok(terminated((0..steps).map(|k| {
        let share = k as f32 / last;
        f64::from(share * min + (1.0 - share) * max).tan()
    })))
}
