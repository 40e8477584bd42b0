//! Noise schedules: the descending noise levels that a sampler steps through.
//!
//! [`SCHEDULERS`] are those that every model has, by name; [`curves`] and [`tables`] hold those with parameters of
//! their own; [`edit`] what is done to finished schedules. Levels are f32, computed in f64.

mod beta;
pub mod curves;
pub mod edit;
pub(crate) mod linspace;
pub mod named;
pub mod tables;

use thiserror::Error;

pub use named::{SCHEDULERS, Scheduler};

use crate::ModelSampling;

/// Most steps that a schedule may have; beyond it a request is a mistake.
pub const MAX_STEPS: usize = 1_000_000;

/// Why there is no schedule.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum ScheduleError {
    /// A name that is not in the list.
    #[error("no scheduler is named {0:?}")]
    UnknownScheduler(String),
    /// A model type that has no table.
    #[error("{table} has no levels for {model:?}")]
    UnknownTable {
        /// Family of tables.
        table: &'static str,
        /// Asked entry.
        model: String,
    },
    /// Too many steps, or too few for the scheduler.
    #[error("a schedule of {0} steps cannot be made; {1} to {MAX_STEPS} are possible")]
    Steps(usize, usize),
    /// A parameter outside its domain.
    #[error("{name} cannot be {value}")]
    Parameter {
        /// Parameter.
        name: &'static str,
        /// Given value.
        value: f64,
    },
    /// An edit that needs a level.
    #[error("the list of sigmas is empty")]
    Empty,
}

/// `steps` if a schedule of at least `least` steps can have as many.
pub(crate) fn checked_steps(steps: usize, least: usize) -> Result<usize, ScheduleError> {
    if (least..=MAX_STEPS).contains(&steps) { Ok(steps) } else { Err(ScheduleError::Steps(steps, least)) }
}

/// The last `steps` steps of a schedule as long as makes them the share `denoise` of it, or of exactly `steps` where
/// `denoise` is above `full`. Nothing is left to do (no sigmas) at and below 0. `schedule` makes a schedule of a
/// number of steps.
fn denoised_share(
    steps: usize,
    denoise: f64,
    full: f64,
    schedule: impl FnOnce(usize) -> Result<Vec<f32>, ScheduleError>,
) -> Result<Vec<f32>, ScheduleError> {
    if denoise.is_nan() {
        return Err(ScheduleError::Parameter { name: "denoise", value: denoise });
    }
    if denoise <= 0.0 {
        return Ok(Vec::new());
    }
    if denoise > full {
        return schedule(checked_steps(steps, 0)?);
    }
    let total = (steps as f64 / denoise) as usize;
    let sigmas = schedule(checked_steps(total, 0)?)?;
    Ok(edit::last(&sigmas, steps + 1).to_vec())
}

/// Schedule of the node `BasicScheduler`: any `denoise` below 1 shortens it.
pub fn basic_schedule(
    model: &ModelSampling,
    scheduler: Scheduler,
    steps: usize,
    denoise: f64,
) -> Result<Vec<f32>, ScheduleError> {
    // Here, not in `KSampler`, a scheduler that makes more steps than asked loses the first.
    let sigmas = denoised_share(steps, denoise, 1.0f64.next_down(), |n| scheduler.sigmas(model, n))?;
    Ok(edit::last(&sigmas, steps.saturating_add(1)).to_vec())
}

/// Schedule of the node `KSampler`: a `denoise` within 0.0001 of 1 counts as 1. `drop_penultimate`: the sampler
/// evaluates between levels, and is given one step more without its last level above zero.
pub fn ksampler_schedule(
    model: &ModelSampling,
    scheduler: Scheduler,
    steps: usize,
    denoise: f64,
    drop_penultimate: bool,
) -> Result<Vec<f32>, ScheduleError> {
    denoised_share(steps, denoise, 0.9999, |n| {
        if !drop_penultimate {
            return scheduler.sigmas(model, n);
        }
        let mut sigmas = scheduler.sigmas(model, n + 1)?;
        if sigmas.len() >= 2 {
            sigmas.remove(sigmas.len() - 2);
        }
        Ok(sigmas)
    })
}
