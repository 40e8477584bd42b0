//! The samplers that have a name.

use std::sync::Arc;

use super::{
    Ddim, Ddpm, Deis, Dpm2, Dpm2Ancestral, DpmAdaptive, DpmFast, Dpmpp2m, Dpmpp2mCfgPp, Dpmpp2mSde,
    Dpmpp2sAncestral, Dpmpp3mSde, DpmppSde, ErSde, Euler, EulerAncestral, EulerAncestralCfgPp,
    GradientEstimation, Heun, HeunPp2, Ipndm, IpndmV, Lcm, Lms, ResMultistep, Result, SaSolver, SampleError,
    Sampler, SdeSolver, Seeds2, Seeds3, UniPc, UniPcVariant,
};

/// A sampler with its name.
#[derive(Clone, Copy, Debug)]
pub struct NamedSampler {
    /// Name, as workflows write it.
    pub name: &'static str,
    make: fn() -> Arc<dyn Sampler>,
}

macro_rules! samplers {
    ($($name:literal => $sampler:expr,)*) => {
        &[$(NamedSampler { name: $name, make: || Arc::new($sampler) }),*]
    };
}

/// Every named sampler, in the order of the interface. A new one is a file and a line here. Those ending in `_gpu`
/// differ from their namesakes only in where the reference draws noise; here noise is drawn on the CPU.
pub const SAMPLERS: &[NamedSampler] = samplers! {
    "euler" => Euler::default(),
    "euler_cfg_pp" => EulerAncestralCfgPp::deterministic(),
    "euler_ancestral" => EulerAncestral::default(),
    "euler_ancestral_cfg_pp" => EulerAncestralCfgPp::default(),
    "heun" => Heun::default(),
    "heunpp2" => HeunPp2::default(),
    "dpm_2" => Dpm2::default(),
    "dpm_2_ancestral" => Dpm2Ancestral::default(),
    "lms" => Lms::default(),
    "dpm_fast" => DpmFast,
    "dpm_adaptive" => DpmAdaptive::default(),
    "dpmpp_2s_ancestral" => Dpmpp2sAncestral::default(),
    "dpmpp_2s_ancestral_cfg_pp" => Dpmpp2sAncestral { cfg_pp: true, ..Default::default() },
    "dpmpp_sde" => DpmppSde::default(),
    "dpmpp_sde_gpu" => DpmppSde::default(),
    "dpmpp_2m" => Dpmpp2m,
    "dpmpp_2m_cfg_pp" => Dpmpp2mCfgPp,
    "dpmpp_2m_sde" => Dpmpp2mSde::default(),
    "dpmpp_2m_sde_gpu" => Dpmpp2mSde::default(),
    "dpmpp_2m_sde_heun" => Dpmpp2mSde { solver: SdeSolver::Heun, ..Default::default() },
    "dpmpp_2m_sde_heun_gpu" => Dpmpp2mSde { solver: SdeSolver::Heun, ..Default::default() },
    "dpmpp_3m_sde" => Dpmpp3mSde::default(),
    "dpmpp_3m_sde_gpu" => Dpmpp3mSde::default(),
    "ddpm" => Ddpm,
    "lcm" => Lcm,
    "ipndm" => Ipndm,
    "ipndm_v" => IpndmV,
    "deis" => Deis,
    "res_multistep" => ResMultistep::new(0.0, false),
    "res_multistep_cfg_pp" => ResMultistep::new(0.0, true),
    "res_multistep_ancestral" => ResMultistep::new(1.0, false),
    "res_multistep_ancestral_cfg_pp" => ResMultistep::new(1.0, true),
    "gradient_estimation" => GradientEstimation::default(),
    "gradient_estimation_cfg_pp" => GradientEstimation { cfg_pp: true, ..Default::default() },
    "er_sde" => ErSde::default(),
    "seeds_2" => Seeds2::default(),
    "seeds_3" => Seeds3::default(),
    "sa_solver" => SaSolver::default(),
    "sa_solver_pece" => SaSolver { pece: true, ..Default::default() },
    "ddim" => Ddim,
    "uni_pc" => UniPc { variant: UniPcVariant::Bh1 },
    "uni_pc_bh2" => UniPc { variant: UniPcVariant::Bh2 },
};

/// The sampler of that name.
pub fn sampler_named(name: &str) -> Result<Arc<dyn Sampler>> {
    let found = SAMPLERS.iter().find(|s| s.name == name);
    found.map(|s| (s.make)()).ok_or_else(|| SampleError::UnknownSampler(name.to_owned()))
}
