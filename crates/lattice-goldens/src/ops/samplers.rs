//! Samplers on the analytic denoiser: by name, with options, masked, in stages; scaling around the network.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use candle_core::{DType, Device, Tensor};
use lattice_diffusion::conditioning::{Conditioning, Entry};
use lattice_diffusion::guidance::{Guider, GuiderKind, Model, Patches};
use lattice_diffusion::model::{NoiseModel, Run};
use lattice_diffusion::sample::{self, DenoiseMask, Differential, Sampled, Sampling};
use lattice_diffusion::samplers::{
    self, DpmAdaptive, Dpmpp2mSde, Dpmpp2sAncestral, Dpmpp3mSde, DpmppSde, ErSde, EulerAncestral,
    EulerAncestralCfgPp, EulerCfgPpAlternative, LcmUpscale, Lms, Observer, SaSolver, Sampler, SdeInterval,
    SdeSolver, Step, sampler_named,
};
use lattice_diffusion::schedules::{Scheduler, basic_schedule, ksampler_schedule};
use lattice_diffusion::{Denoised, Denoiser, ModelSampling};
use serde_json::Value as Json;

use super::{Operation, schedules};
use crate::analytic::Analytic;
use crate::{Case, Check, Outcome};

/// Operations of topic `samplers`.
pub(super) const OPERATIONS: &[Operation] = &[
    ("samplers", "KSampler", ksampler),
    ("samplers", "KSamplerAdvanced", ksampler_advanced),
    ("samplers", "KSampler_masked", ksampler),
    ("samplers", "sampler_node", sampler_node),
    ("samplers", "SamplerLCMUpscale", sampler_node),
    ("samplers", "SamplerEulerCFGpp", sampler_node),
    ("samplers", "SamplerCustomAdvanced", custom_advanced),
    ("samplers", "two_stage", two_stage),
    ("samplers", "AddNoise", add_noise),
    ("samplers", "model_sampling", model_sampling),
];

fn number(json: &Json, name: &str) -> Result<f64> {
    json[name].as_f64().with_context(|| format!("no number {name} in {json}"))
}

/// A prompt that is one number.
fn prompt(a: f64) -> Result<Conditioning> {
    Ok(vec![Entry::new(Tensor::full(a as f32, (1, 1, 1), &Device::Cpu)?)])
}

/// The named sampler of a case.
pub(super) fn sampler(case: &Case<'_>) -> Result<Arc<dyn Sampler>> {
    Ok(sampler_named(case.str("sampler")?)?)
}

/// The sampler that an option node makes.
fn node_sampler(node: &str, options: &Json) -> Result<Arc<dyn Sampler>> {
    let get = |name: &str| number(options, name);
    let count = |name: &str| get(name).map(|v| v as usize);
    let (eta, s_noise) = (get("eta"), get("s_noise"));
    Ok(match node {
        "SamplerEulerAncestral" => Arc::new(EulerAncestral { eta: eta?, s_noise: s_noise? }),
        "SamplerEulerAncestralCFGPP" => Arc::new(EulerAncestralCfgPp { eta: eta?, s_noise: s_noise? }),
        "SamplerDPMPP_2S_Ancestral" => {
            Arc::new(Dpmpp2sAncestral { eta: eta?, s_noise: s_noise?, cfg_pp: false })
        }
        "SamplerDPMPP_SDE" => Arc::new(DpmppSde { eta: eta?, s_noise: s_noise?, r: get("r")? }),
        "SamplerDPMPP_2M_SDE" => {
            let heun = options["solver_type"] == "heun";
            let solver = if heun { SdeSolver::Heun } else { SdeSolver::Midpoint };
            Arc::new(Dpmpp2mSde { eta: eta?, s_noise: s_noise?, solver })
        }
        "SamplerDPMPP_3M_SDE" => Arc::new(Dpmpp3mSde { eta: eta?, s_noise: s_noise? }),
        "SamplerLMS" => Arc::new(Lms { order: count("order")? }),
        "SamplerDPMAdaptative" => Arc::new(DpmAdaptive {
            order: count("order")?,
            rtol: get("rtol")?,
            atol: get("atol")?,
            h_init: get("h_init")?,
            pcoeff: get("pcoeff")?,
            icoeff: get("icoeff")?,
            dcoeff: get("dcoeff")?,
            accept_safety: get("accept_safety")?,
            eta: eta?,
            s_noise: s_noise?,
        }),
        "SamplerER_SDE" => {
            let solver = options["solver_type"].as_str().unwrap_or_default();
            Arc::new(ErSde::of_solver(solver, eta?, s_noise?, count("max_stage")?).context("solver_type")?)
        }
        "SamplerSASolver" => Arc::new(SaSolver {
            eta: eta?,
            interval: SdeInterval::Shares { start: get("sde_start_percent")?, end: get("sde_end_percent")? },
            s_noise: s_noise?,
            predictor_order: count("predictor_order")?,
            corrector_order: count("corrector_order")?,
            pece: options["use_pece"] == true,
            simple_order_2: options["simple_order_2"] == true,
        }),
        "SamplerLCMUpscale" => {
            let method = options["upscale_method"].as_str().unwrap_or_default().parse()?;
            let (scale_ratio, scale_steps) = (get("scale_ratio")?, get("scale_steps")? as i64);
            Arc::new(LcmUpscale { scale_ratio, scale_steps, method })
        }
        "SamplerEulerCFGpp" => match options["version"].as_str() {
            Some("regular") => Arc::new(EulerAncestralCfgPp::deterministic()),
            Some("alternative") => Arc::new(EulerCfgPpAlternative),
            other => bail!("unknown version {other:?}"),
        },
        other => bail!("unknown sampler node {other}"),
    })
}

/// Records what the reference recorded.
#[derive(Default)]
struct Recorder {
    noise: Vec<Tensor>,
}

impl Observer for Recorder {
    fn step(&mut self, _step: &Step<'_>) -> samplers::Result<()> {
        Ok(())
    }

    fn noise(&mut self, noise: &Tensor) {
        self.noise.push(noise.clone());
    }
}

/// A denoiser that remembers its calls.
struct Recording<D> {
    inner: D,
    x: Vec<Tensor>,
    sigma: Vec<f64>,
}

impl<D: Denoiser> Denoiser for Recording<D> {
    fn denoise(&mut self, x: &Tensor, sigma: f64, need_uncond: bool) -> candle_core::Result<Denoised> {
        self.x.push(x.clone());
        self.sigma.push(sigma);
        self.inner.denoise(x, sigma, need_uncond)
    }
}

/// Model, guidance and latent of a case.
struct Setting {
    base: Arc<Analytic>,
    kind: GuiderKind,
    latent: Tensor,
    seed: u64,
}

/// What a run left behind.
struct Trace {
    result: Sampled,
    calls: Vec<Tensor>,
    call_sigmas: Vec<f64>,
    noise: Vec<Tensor>,
}

impl Setting {
    fn new(case: &Case<'_>) -> Result<Self> {
        let shape = case.usizes("shape")?;
        let channels = *shape.get(1).context("a shape has channels")?;
        let base = Arc::new(Analytic::new(&case.set.index["denoiser"], case.str("model")?, channels)?);
        let latent = if case.has_tensor("latent") {
            case.tensor("latent")?
        } else {
            Tensor::zeros(shape, DType::F32, &Device::Cpu)?
        };
        Ok(Self { base, kind: guider(case)?, latent, seed: case.seed("seed")? })
    }

    fn model(&self) -> &ModelSampling {
        self.base.sampling()
    }

    /// Samples from a latent with the initial noise of a seed or none; `seed` is that of the noise per step.
    fn run(
        &self,
        sampler: &dyn Sampler,
        sigmas: &[f32],
        latent: &Tensor,
        initial: Option<u64>,
        seed: u64,
        mask: Option<&DenoiseMask>,
    ) -> Result<Trace> {
        let model = Model { base: self.base.clone(), patches: Patches::default() };
        let guider = Guider { model, kind: self.kind.clone() };
        let inner = guider.start(Run::new(latent.dims(), latent.device()))?;
        let mut denoiser = Recording { inner, x: Vec::new(), sigma: Vec::new() };
        let mut recorder = Recorder::default();
        let noise = sample::initial_noise(latent, initial, None)?;
        let sampling = Sampling {
            model: self.model(),
            format: None,
            sampler,
            sigmas,
            noise: &noise,
            seed,
            latent,
            mask,
        };
        let result = sampling.run(&mut denoiser, &mut recorder)?;
        Ok(Trace { result, calls: denoiser.x, call_sigmas: denoiser.sigma, noise: recorder.noise })
    }
}

fn guider(case: &Case<'_>) -> Result<GuiderKind> {
    let inputs = &case.json["guider_inputs"];
    let inputs = if inputs.is_object() { inputs } else { case.json };
    let get = |name: &str| number(inputs, name);
    let value = |name: &str| prompt(get(name)?);
    if inputs["cond1"].is_number() {
        return Ok(GuiderKind::Dual {
            cond1: value("cond1")?,
            cond2: value("cond2")?,
            negative: value("negative")?,
            cfg_conds: get("cfg_conds")?,
            cfg_cond2_negative: get("cfg_cond2_negative")?,
            nested: inputs["style"] == "nested",
        });
    }
    Ok(if inputs["cfg"].is_number() {
        GuiderKind::Cfg { positive: value("positive")?, negative: value("negative")?, cfg: get("cfg")? }
    } else if inputs["positive"].is_number() {
        GuiderKind::Basic { positive: value("positive")? }
    } else {
        GuiderKind::Basic { positive: Vec::new() }
    })
}

/// The case's absolute tolerance.
fn tolerance(case: &Case<'_>) -> Result<f64> {
    case.tolerance().as_f64().context("a case states its tolerance")
}

/// Input scales grow with sigma, and errors with them.
const RELATIVE: f64 = 1e-4;

fn compare(case: &Case<'_>, trace: &Trace, sigmas: &[f32]) -> Result<Outcome> {
    let abs = tolerance(case)?;
    let mut checks = vec![Check::close("out", &trace.result.samples, &case.tensor("out")?, abs, 0.0)?];
    if case.has_tensor("denoised") {
        checks.push(Check::close(
            "denoised",
            &trace.result.denoised,
            &case.tensor("denoised")?,
            abs,
            RELATIVE,
        )?);
    }
    if case.has_tensor("sigmas") {
        let got = Tensor::from_slice(sigmas, sigmas.len(), &Device::Cpu)?;
        checks.push(Check::close("sigmas", &got, &case.tensor("sigmas")?, 1e-7, 2e-4)?);
    }
    if case.has_tensor("call_x") {
        let want = case.tensor("call_x")?;
        let got = Tensor::stack(&trace.calls, 0)?;
        checks.push(Check::close("call_x", &got, &want.reshape(got.shape())?, abs, RELATIVE)?);
        let got = Tensor::new(trace.call_sigmas.as_slice(), &Device::Cpu)?;
        let want = case.tensor("call_sigma")?.flatten_all()?;
        checks.push(Check::close("call_sigma", &got, &want, 1e-6, 2e-4)?);
    }
    if case.has_tensor("noise_draws") {
        let got = Tensor::stack(&trace.noise, 0)?;
        let want = case.tensor("noise_draws")?;
        checks.push(Check::close("noise_draws", &got, &want.reshape(got.shape())?, 2e-6, 0.0)?);
    }
    Ok(Outcome::Ran(checks))
}

fn mask(case: &Case<'_>) -> Result<Option<DenoiseMask>> {
    if !case.has_tensor("mask") {
        return Ok(None);
    }
    let strength = case.json["differential_diffusion_strength"].as_f64();
    Ok(Some(DenoiseMask {
        mask: case.tensor("mask")?,
        differential: strength.map(|strength| Differential { strength }),
    }))
}

fn ksampler(case: &Case<'_>) -> Result<Outcome> {
    let (setting, sampler) = (Setting::new(case)?, sampler(case)?);
    let sigmas = ksampler_schedule(
        setting.model(),
        Scheduler::named(case.str("scheduler")?)?,
        case.usize("steps")?,
        case.f64("denoise")?,
        sampler.drops_penultimate_sigma(),
    )?;
    let mask = mask(case)?;
    let trace = setting.run(
        sampler.as_ref(),
        &sigmas,
        &setting.latent,
        Some(setting.seed),
        setting.seed,
        mask.as_ref(),
    )?;
    compare(case, &trace, &sigmas)
}

fn ksampler_advanced(case: &Case<'_>) -> Result<Outcome> {
    let (setting, sampler) = (Setting::new(case)?, sampler(case)?);
    let scheduler = Scheduler::named(case.str("scheduler")?)?;
    let full = ksampler_schedule(
        setting.model(),
        scheduler,
        case.usize("steps")?,
        1.0,
        sampler.drops_penultimate_sigma(),
    )?;
    let leave = case.json["return_with_leftover_noise"] == "enable";
    let sigmas = sample::window(&full, case.usize("start_at_step")?, case.usize("end_at_step")?, leave);
    let noisy = case.json["add_noise"] == "enable";
    let trace = setting.run(
        sampler.as_ref(),
        &sigmas,
        &setting.latent,
        noisy.then_some(setting.seed),
        setting.seed,
        None,
    )?;
    compare(case, &trace, &sigmas)
}

/// A sampler node with a named schedule, through `SamplerCustomAdvanced`.
fn sampler_node(case: &Case<'_>) -> Result<Outcome> {
    let setting = Setting::new(case)?;
    let (node, options) = match case.json["node"].as_str() {
        Some(node) => (node, &case.json["options"]),
        None => (case.operation(), &case.json["inputs"]),
    };
    let sampler = node_sampler(node, options)?;
    let scheduler = Scheduler::named(case.str("scheduler")?)?;
    let sigmas = basic_schedule(setting.model(), scheduler, case.usize("steps")?, 1.0)?;
    let trace =
        setting.run(sampler.as_ref(), &sigmas, &setting.latent, Some(setting.seed), setting.seed, None)?;
    compare(case, &trace, &sigmas)
}

/// The levels that a case was run with.
fn stored_sigmas(case: &Case<'_>) -> Result<Vec<f32>> {
    Ok(case.tensor("sigmas")?.to_dtype(DType::F32)?.to_vec1()?)
}

fn custom_advanced(case: &Case<'_>) -> Result<Outcome> {
    let setting = Setting::new(case)?;
    let sigmas = stored_sigmas(case)?;
    let noisy = case.str("noise")? == "RandomNoise";
    let seed = if noisy { setting.seed } else { 0 };
    let trace = setting.run(
        sampler(case)?.as_ref(),
        &sigmas,
        &setting.latent,
        noisy.then_some(setting.seed),
        seed,
        None,
    )?;
    compare(case, &trace, &sigmas)
}

/// A schedule split in two: the second stage goes on without new noise.
fn two_stage(case: &Case<'_>) -> Result<Outcome> {
    let (setting, sampler) = (Setting::new(case)?, sampler(case)?);
    let sigmas = stored_sigmas(case)?;
    let (high, low) = lattice_diffusion::schedules::edit::split(&sigmas, case.usize("split_at")?);
    let first =
        setting.run(sampler.as_ref(), high, &setting.latent, Some(setting.seed), setting.seed, None)?;
    let second = setting.run(sampler.as_ref(), low, &first.result.samples, None, 0, None)?;
    let abs = tolerance(case)?;
    Ok(Outcome::Ran(vec![
        Check::close("stage1", &first.result.samples, &case.tensor("stage1")?, abs, RELATIVE)?,
        Check::close(
            "stage1_denoised",
            &first.result.denoised,
            &case.tensor("stage1_denoised")?,
            abs,
            RELATIVE,
        )?,
        Check::close("out", &second.result.samples, &case.tensor("out")?, abs, 0.0)?,
    ]))
}

fn add_noise(case: &Case<'_>) -> Result<Outcome> {
    let setting = Setting::new(case)?;
    let sigmas: Vec<f32> = case
        .field("sigmas")?
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Json::as_f64)
        .map(|s| s as f32)
        .collect();
    let noise = sample::initial_noise(&setting.latent, Some(setting.seed), None)?;
    let got = sample::add_noise(setting.model(), None, &sigmas, &noise.noise, &setting.latent)?;
    Ok(Outcome::Ran(vec![Check::close("out", &got, &case.tensor("out")?, tolerance(case)?, 0.0)?]))
}

/// Input scaling, prediction and noise scaling, each item of the batch at its own sigma; the start of a run at the first
/// of them, its end at half the last.
fn model_sampling(case: &Case<'_>) -> Result<Outcome> {
    let model = schedules::model(case.json)?;
    let sigmas = case.tensor("sigma")?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    let items = |role: &str, f: &dyn Fn(usize, f64) -> candle_core::Result<Tensor>| -> Result<Check> {
        let got: Vec<Tensor> =
            sigmas.iter().enumerate().map(|(i, &s)| f(i, s)).collect::<candle_core::Result<_>>()?;
        Check::close(role, &Tensor::cat(&got, 0)?, &case.tensor(role)?, 1e-6, 2e-6)
    };
    let (Some(&first), Some(&last)) = (sigmas.first(), sigmas.last()) else { bail!("no sigma") };
    let whole = |role: &str, got: Tensor| Check::close(role, &got, &case.tensor(role)?, 1e-6, 2e-6);
    let tensor = |role: &str| case.tensor(role);
    let (x, output, latent, noise) =
        (tensor("x")?, tensor("model_output")?, tensor("latent")?, tensor("noise")?);
    let item = |t: &Tensor, i: usize| t.narrow(0, i, 1);
    let timesteps: Vec<f64> = sigmas.iter().map(|&s| f64::from(model.timestep(s))).collect();
    let want = case.tensor("timestep")?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    Ok(Outcome::Ran(vec![
        Check::close_values("timestep", &timesteps, &want, 1e-6, 2e-6),
        items("input", &|i, s| model.network_input(&item(&x, i)?, s))?,
        items("denoised", &|i, s| model.denoised(&item(&x, i)?, &item(&output, i)?, s))?,
        items("noised", &|i, s| model.noise_scaling(s, &item(&noise, i)?, &item(&latent, i)?, false))?,
        whole("noised_max", model.noise_scaling(first, &noise, &latent, true)?)?,
        whole("inverse", model.inverse_noise_scaling(0.5 * last, &x)?)?,
    ]))
}
