//! Sigma tables, schedulers, scheduler nodes, sigma edits.

use anyhow::{Context, Result, anyhow, bail};
use candle_core::{Device, Tensor};
use lattice_diffusion::model_sampling::{ModelSampling, SamplingSettings};
use lattice_diffusion::schedules::edit::{self, Spacing};
use lattice_diffusion::schedules::{Scheduler, basic_schedule, curves, ksampler_schedule, tables};
use serde_json::Value as Json;

use super::Operation;
use crate::{Case, Check, Outcome};

/// Operations of topic `schedules`.
pub(super) const OPERATIONS: &[Operation] = &[
    ("schedules", "model_sampling_table", table),
    ("schedules", "BasicScheduler", basic),
    ("schedules", "KSampler", ksampler),
    ("schedules", "node", node),
    ("schedules", "sigma_edit", sigma_edit),
    ("schedules", "SamplingPercentToSigma", percent),
];

/// The model that a JSON object's `settings` describe.
pub(super) fn model(json: &Json) -> Result<ModelSampling> {
    let settings: SamplingSettings =
        serde_json::from_value(json["settings"].clone()).context("model sampling settings")?;
    Ok(ModelSampling::new(&settings)?)
}

/// |got - want| <= rel |want| + 1e-7, with the relative part that the set states for the kind of schedule.
fn relative(case: &Case<'_>, scheduler: &str, json: &Json) -> f64 {
    let stated = |name: &str| case.set.index["tolerance"][name].as_f64();
    let special = match json["settings"]["base"].as_str() {
        Some("stable_cascade") => stated("rel_stable_cascade"),
        Some("continuous_v") => stated("rel_continuous_v"),
        _ => None,
    };
    let of_scheduler = if scheduler == "kl_optimal" { stated("rel_kl_optimal") } else { None };
    let default = stated("rel_default").unwrap_or(0.0);
    [special, of_scheduler].into_iter().flatten().fold(default, f64::max)
}

const ABSOLUTE: f64 = 1e-7;

/// A list of numbers in which null is NaN.
fn list(json: &Json) -> Vec<f64> {
    json.as_array().into_iter().flatten().map(|v| v.as_f64().unwrap_or(f64::NAN)).collect()
}

fn compare(name: &str, got: &[f32], want: &Json, rel: f64) -> Check {
    let got: Vec<f64> = got.iter().copied().map(f64::from).collect();
    Check::close_values(name, &got, &list(want), ABSOLUTE, rel)
}

/// Compares levels with `sigmas`, or the failure with the reference's.
fn levels<E: std::error::Error + Send + Sync + 'static>(
    case: &Case<'_>,
    got: std::result::Result<Vec<f32>, E>,
    rel: f64,
) -> Result<Outcome> {
    if case.json["error"] == true {
        return Ok(Outcome::Ran(vec![Check::equal("fails", &got.is_err(), &true)]));
    }
    Ok(Outcome::Ran(vec![compare("sigmas", &got?, case.field("sigmas")?, rel)]))
}

fn table(case: &Case<'_>) -> Result<Outcome> {
    let model = model(case.json)?;
    let rel = relative(case, "", case.json);
    let number = |name: &str| case.f64(name);
    let close = |name: &str, got: f64, want: f64| Check::close_values(name, &[got], &[want], ABSOLUTE, rel);
    let got = Tensor::from_slice(model.sigmas(), model.sigmas().len(), &Device::Cpu)?;
    let mut checks = vec![
        Check::close("table", &got, &case.tensor("sigmas")?, ABSOLUTE, rel)?,
        close("sigma_min", model.sigma_min(), number("sigma_min")?),
        close("sigma_max", model.sigma_max(), number("sigma_max")?),
        close("sigma_data", model.sigma_data(), number("sigma_data")?),
    ];
    let maps: [(&str, &dyn Fn(f64) -> f64); 3] = [
        ("percent_to_sigma", &|p| model.percent_to_sigma(p)),
        ("sigma_to_timestep", &|s| f64::from(model.timestep(s))),
        ("timestep_to_sigma", &|t| model.sigma(t)),
    ];
    for (name, map) in maps {
        for pair in case.field(name)?.as_array().into_iter().flatten() {
            let [from, to] = list(pair)[..] else { bail!("{name}: {pair} is no pair") };
            checks.push(close(&format!("{name}({from})"), map(from), to));
        }
    }
    Ok(Outcome::Ran(checks))
}

fn basic(case: &Case<'_>) -> Result<Outcome> {
    let name = case.str("scheduler")?;
    let scheduler = Scheduler::named(name)?;
    let got = basic_schedule(&model(case.json)?, scheduler, case.usize("steps")?, case.f64("denoise")?);
    levels(case, got, relative(case, name, case.json))
}

fn ksampler(case: &Case<'_>) -> Result<Outcome> {
    let name = case.str("scheduler")?;
    let penultimate = super::samplers::sampler(case)?.drops_penultimate_sigma();
    let got = ksampler_schedule(
        &model(case.json)?,
        Scheduler::named(name)?,
        case.usize("steps")?,
        case.f64("denoise")?,
        penultimate,
    );
    levels(case, got, relative(case, name, case.json))
}

fn node(case: &Case<'_>) -> Result<Outcome> {
    let inputs = case.field("inputs")?;
    let number = |name: &str| inputs[name].as_f64().ok_or_else(|| anyhow!("input {name} is no number"));
    let text = |name: &str| inputs[name].as_str().ok_or_else(|| anyhow!("input {name} is no text"));
    let steps = inputs["steps"].as_u64().ok_or_else(|| anyhow!("no steps"))? as usize;
    let range = || anyhow::Ok((number("sigma_min")?, number("sigma_max")?));
    let rel = relative(case, "", inputs);
    let got = match case.str("node")? {
        "KarrasScheduler" => {
            let (min, max) = range()?;
            curves::karras(steps, min, max, number("rho")?)
        }
        "ExponentialScheduler" => {
            let (min, max) = range()?;
            curves::exponential(steps, min, max)
        }
        "PolyexponentialScheduler" => {
            let (min, max) = range()?;
            curves::polyexponential(steps, min, max, number("rho")?)
        }
        "LaplaceScheduler" => {
            let (min, max) = range()?;
            curves::laplace(steps, min, max, number("mu")?, number("beta")?)
        }
        "VPScheduler" => curves::vp(steps, number("beta_d")?, number("beta_min")?, number("eps_s")?),
        "BetaSamplingScheduler" => {
            curves::beta_sampling(&model(inputs)?, steps, number("alpha")?, number("beta")?)
        }
        "SDTurboScheduler" => curves::sd_turbo(&model(inputs)?, steps, number("denoise")?),
        "AlignYourStepsScheduler" => tables::align_your_steps(text("model_type")?, steps, number("denoise")?),
        "OptimalStepsScheduler" => tables::optimal_steps(text("model_type")?, steps, number("denoise")?),
        "GITSScheduler" => tables::gits(number("coeff")?, steps, number("denoise")?),
        "LTXVScheduler" => {
            let shape = inputs["latent_shape"].as_array();
            let tokens = shape.map_or(curves::Ltxv::DEFAULT_TOKENS, |shape| {
                shape.iter().skip(2).filter_map(Json::as_u64).product::<u64>() as usize
            });
            let settings = curves::Ltxv {
                max_shift: number("max_shift")?,
                base_shift: number("base_shift")?,
                stretch: inputs["stretch"] == true,
                terminal: number("terminal")?,
                tokens,
            };
            curves::ltxv(steps, &settings)
        }
        other => bail!("unknown scheduler node {other}"),
    };
    levels(case, got, rel)
}

fn sigma_edit(case: &Case<'_>) -> Result<Outcome> {
    let inputs = case.field("inputs")?;
    let number = |name: &str| inputs[name].as_f64().ok_or_else(|| anyhow!("input {name} is no number"));
    let count = |name: &str| Ok::<_, anyhow::Error>(number(name)? as usize);
    let sigmas: Vec<f32> = list(&inputs["sigmas_in"]).iter().map(|&s| s as f32).collect();
    let pair = |(a, b): (&[f32], &[f32])| vec![a.to_vec(), b.to_vec()];
    let got = match case.str("node")? {
        "SplitSigmas" => Ok(pair(edit::split(&sigmas, count("step")?))),
        "SplitSigmasDenoise" => Ok(pair(edit::split_denoise(&sigmas, number("denoise")?))),
        "FlipSigmas" => Ok(vec![edit::flip(&sigmas)]),
        "SetFirstSigma" => edit::set_first(&sigmas, number("sigma")?).map(|s| vec![s]),
        "ExtendIntermediateSigmas" => {
            let spacing = Spacing::named(inputs["spacing"].as_str().unwrap_or_default())
                .ok_or_else(|| anyhow!("unknown spacing"))?;
            let (start, end) = (number("start_at_sigma")?, number("end_at_sigma")?);
            edit::extend_intermediate(&sigmas, count("steps")?, start, end, spacing).map(|s| vec![s])
        }
        other => bail!("unknown sigma node {other}"),
    };
    if case.json["error"] == true {
        return Ok(Outcome::Ran(vec![Check::equal("fails", &got.is_err(), &true)]));
    }
    let (got, want) = (got?, case.field("outputs")?.as_array().ok_or_else(|| anyhow!("outputs is no list"))?);
    if got.len() != want.len() {
        bail!("{} results for {}", got.len(), want.len())
    }
    let rel = relative(case, "", inputs);
    let check =
        |(i, (got, want)): (usize, (&Vec<f32>, &Json))| compare(&format!("output {i}"), got, want, rel);
    Ok(Outcome::Ran(got.iter().zip(want).enumerate().map(check).collect()))
}

fn percent(case: &Case<'_>) -> Result<Outcome> {
    let (model, percent) = (model(case.json)?, case.f64("sampling_percent")?);
    let got = if case.json["return_actual_sigma"] == true {
        model.percent_to_actual_sigma(percent)
    } else {
        model.percent_to_sigma(percent)
    };
    let rel = relative(case, "", case.json);
    Ok(Outcome::Ran(vec![Check::close_values("sigma", &[got], &[case.f64("value")?], ABSOLUTE, rel)]))
}
