//! Schedules that were searched for, not derived: published tables and their resampling.

use std::collections::HashMap;
use std::sync::OnceLock;

use super::{ScheduleError, checked_steps, edit};

/// Align Your Steps (arXiv 2404.14507), Stable Diffusion 1.5.
const AYS_SD1: &[f64] = &[
    14.6146412293,
    6.4745760956,
    3.8636745985,
    2.6946151520,
    1.8841921177,
    1.3943805092,
    0.9642583904,
    0.6523686016,
    0.3977456272,
    0.1515232662,
    0.0291671582,
];
/// Align Your Steps, SDXL.
const AYS_SDXL: &[f64] = &[
    14.6146412293,
    6.3184485287,
    3.7681790315,
    2.1811480769,
    1.3405244945,
    0.8620721141,
    0.5550693289,
    0.3798540708,
    0.2332364134,
    0.1114188177,
    0.0291671582,
];
/// Align Your Steps, Stable Video Diffusion.
const AYS_SVD: &[f64] = &[700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002];
/// Optimal Stepsize (arXiv 2503.21774), Flux.
const OSS_FLUX: &[f64] =
    &[0.9968, 0.9886, 0.9819, 0.975, 0.966, 0.9471, 0.9158, 0.8287, 0.5512, 0.2808, 0.001];
/// Optimal Stepsize, Wan.
const OSS_WAN: &[f64] = &[
    1.0, 0.997, 0.995, 0.993, 0.991, 0.989, 0.987, 0.985, 0.98, 0.975, 0.973, 0.968, 0.96, 0.946, 0.927,
    0.902, 0.864, 0.776, 0.539, 0.208, 0.001,
];
/// Optimal Stepsize, Chroma.
const OSS_CHROMA: &[f64] = &[
    0.992, 0.99, 0.988, 0.985, 0.982, 0.978, 0.973, 0.968, 0.961, 0.953, 0.943, 0.931, 0.917, 0.9, 0.881,
    0.858, 0.832, 0.802, 0.769, 0.731, 0.69, 0.646, 0.599, 0.55, 0.501, 0.451, 0.402, 0.355, 0.311, 0.27,
    0.232, 0.199, 0.169, 0.143, 0.12, 0.101, 0.084, 0.07, 0.058, 0.048, 0.001,
];

/// Align Your Steps for "SD1", "SDXL" or "SVD".
pub fn align_your_steps(model: &str, steps: usize, denoise: f64) -> Result<Vec<f32>, ScheduleError> {
    let levels = match model {
        "SD1" => AYS_SD1,
        "SDXL" => AYS_SDXL,
        "SVD" => AYS_SVD,
        _ => return Err(unknown("Align Your Steps", model)),
    };
    finished(levels, steps, denoise)
}

/// Optimal Stepsize for "FLUX", "Wan" or "Chroma".
pub fn optimal_steps(model: &str, steps: usize, denoise: f64) -> Result<Vec<f32>, ScheduleError> {
    let levels = match model {
        "FLUX" => OSS_FLUX,
        "Wan" => OSS_WAN,
        "Chroma" => OSS_CHROMA,
        _ => return Err(unknown("Optimal Stepsize", model)),
    };
    finished(levels, steps, denoise)
}

/// Geometry-inspired time scheduling (arXiv 2405.11326): a table per coefficient (0.80 to 1.50 by 0.05) and number of
/// steps from 2 to 20; more steps resample the longest.
pub fn gits(coeff: f64, steps: usize, denoise: f64) -> Result<Vec<f32>, ScheduleError> {
    const FEWEST: usize = 2;
    static TABLES: OnceLock<HashMap<i64, Vec<Vec<f64>>>> = OnceLock::new();
    let tables = TABLES.get_or_init(|| {
        let parsed: HashMap<String, Vec<Vec<f64>>> =
            serde_json::from_str(include_str!("gits_levels.json")).unwrap_or_default();
        parsed.into_iter().filter_map(|(k, v)| Some((hundredths(k.parse().ok()?), v))).collect()
    });
    let lists =
        tables.get(&hundredths(coeff)).ok_or(ScheduleError::Parameter { name: "coeff", value: coeff })?;
    let index = checked_steps(steps, FEWEST)? - FEWEST;
    let levels = lists.get(index).or_else(|| lists.last());
    finished(levels.ok_or(ScheduleError::Steps(steps, FEWEST))?, steps, denoise)
}

fn hundredths(coeff: f64) -> i64 {
    (coeff * 100.0).round_ties_even() as i64
}

fn unknown(table: &'static str, model: &str) -> ScheduleError {
    ScheduleError::UnknownTable { table, model: model.to_owned() }
}

/// The table resampled to `steps`, cut to the share `denoise`, ending in 0.
fn finished(levels: &[f64], steps: usize, denoise: f64) -> Result<Vec<f32>, ScheduleError> {
    if denoise.is_nan() {
        return Err(ScheduleError::Parameter { name: "denoise", value: denoise });
    }
    let mut kept = checked_steps(steps, 1)?;
    if denoise < 1.0 {
        if denoise <= 0.0 {
            return Ok(Vec::new());
        }
        kept = (steps as f64 * denoise).round_ties_even() as usize;
    }
    let sigmas: Vec<f32> = if levels.len() == steps + 1 {
        levels.iter().map(|&s| s as f32).collect()
    } else {
        log_linear(levels, steps + 1)
    };
    let mut sigmas = edit::last(&sigmas, kept + 1).to_vec();
    if let Some(end) = sigmas.last_mut() {
        *end = 0.0;
    }
    Ok(sigmas)
}

/// `count` values of the curve whose logarithm is linear between the levels.
fn log_linear(levels: &[f64], count: usize) -> Vec<f32> {
    let logs: Vec<f64> = levels.iter().map(|s| s.ln()).collect();
    let scale = (levels.len() - 1) as f64 / (count - 1) as f64;
    (0..count)
        .map(|i| {
            let x = i as f64 * scale;
            let below = (x as usize).min(levels.len() - 2);
            let weight = x - below as f64;
            (logs[below] + weight * (logs[below + 1] - logs[below])).exp() as f32
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_tables_come_back_at_their_own_length() -> Result<(), ScheduleError> {
        let sigmas = align_your_steps("SD1", 10, 1.0)?;
        assert_eq!(sigmas.len(), 11);
        assert_eq!((sigmas[0], sigmas[9], sigmas[10]), (14.614_641, 0.151_523_266_2, 0.0));
        for coeff in (16..=30).map(|k| f64::from(k) * 0.05) {
            for steps in 2..=20 {
                assert_eq!(gits(coeff, steps, 1.0)?.len(), steps + 1, "{coeff} {steps}");
            }
        }
        Ok(())
    }

    #[test]
    fn what_has_no_table_is_an_error() {
        assert!(align_your_steps("SD9", 10, 1.0).is_err());
        assert!(gits(0.5, 10, 1.0).is_err());
        assert!(gits(1.2, 1, 1.0).is_err());
        assert!(gits(f64::NAN, 10, 1.0).is_err());
        assert!(optimal_steps("FLUX", 0, 1.0).is_err());
        assert!(optimal_steps("FLUX", 4, f64::NAN).is_err());
        assert_eq!(optimal_steps("FLUX", 4, 0.0), Ok(vec![]));
    }
}
