//! Solvers, by name or with their options.

use std::sync::Arc;

use lattice_diffusion::samplers::{
    DpmAdaptive, Dpmpp2mSde, Dpmpp2sAncestral, Dpmpp3mSde, DpmppSde, ErSde, EulerAncestral,
    EulerAncestralCfgPp, EulerCfgPpAlternative, LcmUpscale, Lms, SaSolver, SdeInterval, SdeSolver,
    sampler_named,
};
use lattice_graph::Node;

use super::sampling::sampler_names;
use super::sampling_run::failure;
use crate::node::{Choice, node};
use crate::types::{Model, Sampler};
use crate::{Error, Result};

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![
        ksampler_select,
        sampler_euler_ancestral,
        sampler_euler_ancestral_cfg_pp,
        sampler_lms,
        sampler_dpmpp_3m_sde,
        sampler_dpmpp_2m_sde,
        sampler_dpmpp_sde,
        sampler_dpmpp_2s_ancestral,
        sampler_dpm_adaptive,
        sampler_er_sde,
        sampler_sa_solver,
        sampler_lcm_upscale,
        sampler_euler_cfg_pp,
    ]
}

/// A solver by its name, with its usual options.
#[node(
    name = "KSamplerSelect",
    title = "KSamplerSelect",
    category = "sampling/custom_sampling/samplers",
    module = "comfy_extras.nodes_custom_sampler"
)]
fn ksampler_select(#[choice(sampler_names())] sampler_name: &str) -> Result<Sampler> {
    Ok(Sampler(sampler_named(sampler_name).map_err(failure)?))
}

/// Euler's method with a share of every step's noise drawn anew.
#[node(
    name = "SamplerEulerAncestral",
    title = "SamplerEulerAncestral",
    category = "sampling/custom_sampling/samplers",
    module = "comfy_extras.nodes_custom_sampler"
)]
fn sampler_euler_ancestral(
    #[widget(default = 1.0, min = 0.0, max = 100.0, step = 0.01, round = false)] eta: f64,
    #[widget(default = 1.0, min = 0.0, max = 100.0, step = 0.01, round = false)] s_noise: f64,
) -> Sampler {
    Sampler::new(EulerAncestral { eta, s_noise })
}

/// Ancestral Euler along the unconditional prediction, for low guidance scales (CFG++).
#[node(
    name = "SamplerEulerAncestralCFGPP",
    title = "SamplerEulerAncestralCFG++",
    category = "sampling/custom_sampling/samplers",
    module = "comfy_extras.nodes_custom_sampler"
)]
fn sampler_euler_ancestral_cfg_pp(
    #[widget(default = 1.0, min = 0.0, max = 1.0, step = 0.01, round = false)] eta: f64,
    #[widget(default = 1.0, min = 0.0, max = 10.0, step = 0.01, round = false)] s_noise: f64,
) -> Sampler {
    Sampler::new(EulerAncestralCfgPp { eta, s_noise })
}

/// The linear multistep method of an order.
#[node(
    name = "SamplerLMS",
    title = "SamplerLMS",
    category = "sampling/custom_sampling/samplers",
    module = "comfy_extras.nodes_custom_sampler"
)]
fn sampler_lms(#[widget(default = 4, min = 1, max = 100)] order: usize) -> Sampler {
    Sampler::new(Lms { order })
}

/// Third-order multistep solver of the diffusion equation with noise. Noise is drawn on the CPU whatever the device
/// says, so pictures do not depend on it.
#[node(
    name = "SamplerDPMPP_3M_SDE",
    title = "SamplerDPMPP_3M_SDE",
    category = "sampling/custom_sampling/samplers",
    module = "comfy_extras.nodes_custom_sampler"
)]
fn sampler_dpmpp_3m_sde(
    #[widget(default = 1.0, min = 0.0, max = 100.0, step = 0.01, round = false)] eta: f64,
    #[widget(default = 1.0, min = 0.0, max = 100.0, step = 0.01, round = false)] s_noise: f64,
    #[choice("gpu", "cpu")]
    #[name("noise_device")]
    _noise_device: &str,
) -> Sampler {
    Sampler::new(Dpmpp3mSde { eta, s_noise })
}

/// The rule of second order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Choice)]
enum SolverType {
    #[choice("midpoint")]
    Midpoint,
    #[choice("heun")]
    Heun,
}

/// Second-order multistep solver of the diffusion equation with noise. Noise is drawn on the CPU whatever the device
/// says, so pictures do not depend on it.
#[node(
    name = "SamplerDPMPP_2M_SDE",
    title = "SamplerDPMPP_2M_SDE",
    category = "sampling/custom_sampling/samplers",
    module = "comfy_extras.nodes_custom_sampler"
)]
fn sampler_dpmpp_2m_sde(
    solver_type: SolverType,
    #[widget(default = 1.0, min = 0.0, max = 100.0, step = 0.01, round = false)] eta: f64,
    #[widget(default = 1.0, min = 0.0, max = 100.0, step = 0.01, round = false)] s_noise: f64,
    #[choice("gpu", "cpu")]
    #[name("noise_device")]
    _noise_device: &str,
) -> Sampler {
    let solver = match solver_type {
        SolverType::Midpoint => SdeSolver::Midpoint,
        SolverType::Heun => SdeSolver::Heun,
    };
    Sampler::new(Dpmpp2mSde { eta, s_noise, solver })
}

/// Two-stage solver of the diffusion equation with noise. Noise is drawn on the CPU whatever the device says, so
/// pictures do not depend on it.
#[node(
    name = "SamplerDPMPP_SDE",
    title = "SamplerDPMPP_SDE",
    category = "sampling/custom_sampling/samplers",
    module = "comfy_extras.nodes_custom_sampler"
)]
fn sampler_dpmpp_sde(
    #[widget(default = 1.0, min = 0.0, max = 100.0, step = 0.01, round = false)] eta: f64,
    #[widget(default = 1.0, min = 0.0, max = 100.0, step = 0.01, round = false)] s_noise: f64,
    #[widget(default = 0.5, min = 0.0, max = 100.0, step = 0.01, round = false)] r: f64,
    #[choice("gpu", "cpu")]
    #[name("noise_device")]
    _noise_device: &str,
) -> Sampler {
    Sampler::new(DpmppSde { eta, s_noise, r })
}

/// Two-stage second-order steps, with a share of every step's noise drawn anew.
#[node(
    name = "SamplerDPMPP_2S_Ancestral",
    title = "SamplerDPMPP_2S_Ancestral",
    category = "sampling/custom_sampling/samplers",
    module = "comfy_extras.nodes_custom_sampler"
)]
fn sampler_dpmpp_2s_ancestral(
    #[widget(default = 1.0, min = 0.0, max = 100.0, step = 0.01, round = false)] eta: f64,
    #[widget(default = 1.0, min = 0.0, max = 100.0, step = 0.01, round = false)] s_noise: f64,
) -> Sampler {
    Sampler::new(Dpmpp2sAncestral { eta, s_noise, cfg_pp: false })
}

/// A solver that chooses its own steps, between the first and the last level of the schedule.
#[node(
    name = "SamplerDPMAdaptative",
    title = "SamplerDPMAdaptative",
    category = "sampling/custom_sampling/samplers",
    module = "comfy_extras.nodes_custom_sampler"
)]
fn sampler_dpm_adaptive(
    #[widget(default = 3, min = 2, max = 3)] order: usize,
    #[widget(default = 0.05, min = 0.0, max = 100.0, step = 0.01, round = false)] rtol: f64,
    #[widget(default = 0.0078, min = 0.0, max = 100.0, step = 0.01, round = false)] atol: f64,
    #[widget(default = 0.05, min = 0.0, max = 100.0, step = 0.01, round = false)] h_init: f64,
    #[widget(default = 0.0, min = 0.0, max = 100.0, step = 0.01, round = false)] pcoeff: f64,
    #[widget(default = 1.0, min = 0.0, max = 100.0, step = 0.01, round = false)] icoeff: f64,
    #[widget(default = 0.0, min = 0.0, max = 100.0, step = 0.01, round = false)] dcoeff: f64,
    #[widget(default = 0.81, min = 0.0, max = 100.0, step = 0.01, round = false)] accept_safety: f64,
    #[widget(default = 0.0, min = 0.0, max = 100.0, step = 0.01, round = false)] eta: f64,
    #[widget(default = 1.0, min = 0.0, max = 100.0, step = 0.01, round = false)] s_noise: f64,
) -> Sampler {
    Sampler::new(DpmAdaptive {
        order,
        rtol,
        atol,
        h_init,
        pcoeff,
        icoeff,
        dcoeff,
        accept_safety,
        eta,
        s_noise,
    })
}

/// Extended reverse-time solver: its noise scale is a function that may be chosen.
#[node(
    name = "SamplerER_SDE",
    title = "SamplerER_SDE",
    category = "sampling/custom_sampling/samplers",
    module = "comfy_extras.nodes_custom_sampler"
)]
fn sampler_er_sde(
    // An old-style class with a new-style list, which is shown without further fields.
    #[kind("COMBO")]
    #[widget(options = ["ER-SDE", "Reverse-time SDE", "ODE"])]
    solver_type: &str,
    #[widget(default = 3, min = 1, max = 3)] max_stage: usize,
    /// Stochasticity of the reverse-time equation.
    #[widget(default = 1.0, min = 0.0, max = 100.0, step = 0.01, round = false)]
    eta: f64,
    #[widget(default = 1.0, min = 0.0, max = 100.0, step = 0.01, round = false)] s_noise: f64,
) -> Result<Sampler> {
    let sampler = ErSde::of_solver(solver_type, eta, s_noise, max_stage)
        .ok_or_else(|| Error::value(format!("ER-SDE has no solver {solver_type:?}")))?;
    Ok(Sampler::new(sampler))
}

/// Stochastic Adams predictor and corrector; stochastic only within a part of the model's noise levels.
#[node(
    name = "SamplerSASolver",
    title = "SamplerSASolver",
    category = "sampling/custom_sampling/samplers",
    module = "comfy_extras.nodes_custom_sampler"
)]
fn sampler_sa_solver(
    #[widget] model: Model,
    #[widget(default = 1.0, min = 0.0, max = 10.0, step = 0.01, round = false)] eta: f64,
    #[widget(default = 0.2, min = 0.0, max = 1.0, step = 0.001)] sde_start_percent: f64,
    #[widget(default = 0.8, min = 0.0, max = 1.0, step = 0.001)] sde_end_percent: f64,
    #[widget(default = 1.0, min = 0.0, max = 100.0, step = 0.01, round = false)] s_noise: f64,
    #[widget(default = 3, min = 1, max = 6)] predictor_order: usize,
    #[widget(default = 4, min = 0, max = 6)] corrector_order: usize,
    #[widget] use_pece: bool,
    #[widget] simple_order_2: bool,
) -> Sampler {
    let levels = model.guided.base.sampling();
    let interval = SdeInterval::Sigmas {
        start: levels.percent_to_sigma(sde_start_percent),
        end: levels.percent_to_sigma(sde_end_percent),
    };
    Sampler::new(SaSolver {
        eta,
        interval,
        s_noise,
        predictor_order,
        corrector_order,
        pece: use_pece,
        simple_order_2,
    })
}

/// Consistency sampling that enlarges the latent between its steps.
#[node(
    name = "SamplerLCMUpscale",
    category = "sampling/custom_sampling/samplers",
    module = "comfy_extras.nodes_advanced_samplers",
    v3
)]
fn sampler_lcm_upscale(
    /// Final size over initial size.
    #[widget(default = 1.0, min = 0.1, max = 20.0, step = 0.01)]
    scale_ratio: f64,
    /// In how many steps it is enlarged; -1 is half of them.
    #[widget(default = -1, min = -1, max = 1000, step = 1)]
    scale_steps: i64,
    #[combo("bislerp", "nearest-exact", "bilinear", "area", "bicubic")] upscale_method: &str,
) -> Result<Sampler> {
    Ok(Sampler::new(LcmUpscale { scale_ratio, scale_steps, method: upscale_method.parse()? }))
}

/// Euler's method along the unconditional prediction, for low guidance scales (CFG++).
#[node(
    name = "SamplerEulerCFGpp",
    title = "SamplerEulerCFG++",
    category = "_for_testing",
    module = "comfy_extras.nodes_advanced_samplers",
    v3,
    experimental
)]
fn sampler_euler_cfg_pp(#[combo("regular", "alternative")] version: &str) -> Result<Sampler> {
    match version {
        "regular" => Ok(Sampler::new(EulerAncestralCfgPp::deterministic())),
        "alternative" => Ok(Sampler::new(EulerCfgPpAlternative)),
        other => Err(Error::value(format!("Euler's method with CFG++ has no version {other:?}"))),
    }
}
