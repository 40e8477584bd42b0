//! What is done to finished schedules.

use std::f64::consts::FRAC_PI_2;

use super::ScheduleError;

/// The last `count` levels, or all if there are fewer.
pub fn last(sigmas: &[f32], count: usize) -> &[f32] {
    &sigmas[sigmas.len().saturating_sub(count)..]
}

/// Levels up to and including step `step`, and from it on.
pub fn split(sigmas: &[f32], step: usize) -> (&[f32], &[f32]) {
    let end = step.saturating_add(1).min(sigmas.len());
    (&sigmas[..end], &sigmas[step.min(sigmas.len())..])
}

/// Splits off the last steps, the share `denoise` of all. With nothing split off, the high part is empty, as in the
/// reference.
pub fn split_denoise(sigmas: &[f32], denoise: f64) -> (&[f32], &[f32]) {
    let steps = sigmas.len().saturating_sub(1);
    let low = (steps as f64 * denoise).round_ties_even() as usize;
    let high = if low == 0 { 0 } else { sigmas.len().saturating_sub(low) };
    (&sigmas[..high], last(sigmas, low.saturating_add(1)))
}

/// Reversed, so that a sampler adds noise; a first level of 0 becomes 0.0001, as samplers divide by it.
pub fn flip(sigmas: &[f32]) -> Vec<f32> {
    let mut flipped: Vec<f32> = sigmas.iter().rev().copied().collect();
    if let Some(first) = flipped.first_mut()
        && *first == 0.0
    {
        *first = 0.0001;
    }
    flipped
}

/// With another first level.
pub fn set_first(sigmas: &[f32], sigma: f64) -> Result<Vec<f32>, ScheduleError> {
    let mut changed = sigmas.to_vec();
    *changed.first_mut().ok_or(ScheduleError::Empty)? = sigma as f32;
    Ok(changed)
}

/// How inserted levels are spaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spacing {
    /// Equally.
    Linear,
    /// Denser towards the lower level.
    Cosine,
    /// Denser towards the higher level.
    Sine,
}

impl Spacing {
    /// By its name in workflows.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "linear" => Some(Self::Linear),
            "cosine" => Some(Self::Cosine),
            "sine" => Some(Self::Sine),
            _ => None,
        }
    }

    fn at(self, x: f64) -> f64 {
        match self {
            Self::Linear => x,
            Self::Cosine => (x * FRAC_PI_2).sin(),
            Self::Sine => 1.0 - (x * FRAC_PI_2).cos(),
        }
    }
}

/// Makes `steps` steps of each step that starts between `end` and `start` (a negative `start` is infinity).
pub fn extend_intermediate(
    sigmas: &[f32],
    steps: usize,
    start: f64,
    end: f64,
    spacing: Spacing,
) -> Result<Vec<f32>, ScheduleError> {
    let steps = super::checked_steps(steps, 1)?;
    let start = if start < 0.0 { f64::INFINITY } else { start };
    let mut extended = Vec::with_capacity(sigmas.len());
    for pair in sigmas.windows(2) {
        let (from, to) = (f64::from(pair[0]), f64::from(pair[1]));
        extended.push(pair[0]);
        if end <= from && from <= start {
            let inserted = (1..steps).map(|j| from + spacing.at(j as f64 / steps as f64) * (to - from));
            extended.extend(inserted.map(|s| s as f32));
        }
    }
    extended.extend(sigmas.last());
    super::checked_steps(extended.len(), 0)?;
    Ok(extended)
}
