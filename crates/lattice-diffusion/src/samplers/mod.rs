//! Samplers: solvers of the diffusion ordinary and stochastic differential equations.
//!
//! A [`Sampler`] walks from noise level to noise level through a [`SamplerRun`], which evaluates the denoiser, draws
//! noise and reports progress. [`SAMPLERS`] lists those with a name; types with options can be built directly.
//!
//! Notation shared by the files of this module, after Karras et al. (arXiv 2206.00364) and Lu et al. (arXiv
//! 2211.01095): `x` the noisy sample, `D` its denoised prediction, `U` the unconditional one, `s` and `s1` the current
//! and the next sigma, `d = (x - D)/s` the derivative of x by sigma, `lambda` half the log signal-to-noise ratio.

mod ancestral;
mod ddpm;
mod deis;
mod dpm_solver;
mod dpmpp_2m;
mod dpmpp_2m_sde;
mod dpmpp_2s;
mod dpmpp_sde;
mod er_sde;
mod euler;
mod euler_cfg_pp;
mod gradient_estimation;
mod heun;
mod ipndm;
mod lcm;
mod lms;
mod math;
mod res_multistep;
mod run;
mod sa_solver;
mod seeds;
mod table;
mod uni_pc;

use std::fmt::Debug;

use candle_core::Tensor;
use thiserror::Error;

pub use ancestral::{Dpm2Ancestral, EulerAncestral};
pub use ddpm::Ddpm;
pub use deis::Deis;
pub use dpm_solver::{DpmAdaptive, DpmFast};
pub use dpmpp_2m::{Dpmpp2m, Dpmpp2mCfgPp};
pub use dpmpp_2m_sde::{Dpmpp2mSde, Dpmpp3mSde, SdeSolver};
pub use dpmpp_2s::Dpmpp2sAncestral;
pub use dpmpp_sde::DpmppSde;
pub use er_sde::{ErSde, ErSdeScaler};
pub use euler::{Churn, Ddim, Euler};
pub use euler_cfg_pp::{EulerAncestralCfgPp, EulerCfgPpAlternative};
pub use gradient_estimation::GradientEstimation;
pub use heun::{Dpm2, Heun, HeunPp2};
pub use ipndm::{Ipndm, IpndmV};
pub use lcm::{Lcm, LcmUpscale};
pub use lms::Lms;
pub use res_multistep::ResMultistep;
pub use run::{Observer, SamplerRun, Silent, Step};
pub use sa_solver::{SaSolver, SdeInterval};
pub use seeds::{Seeds2, Seeds3};
pub use table::{NamedSampler, SAMPLERS, sampler_named};
pub use uni_pc::{UniPc, UniPcVariant};

use crate::noise::BrownianError;
use crate::schedules::ScheduleError;

/// Why a run stopped.
#[derive(Debug, Error)]
pub enum SampleError {
    /// A name that is not in the list.
    #[error("no sampler is named {0:?}")]
    UnknownSampler(String),
    /// The denoiser or an operation on tensors failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// There is no such schedule.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// The noise of a stochastic solver cannot be drawn.
    #[error(transparent)]
    Brownian(#[from] BrownianError),
    /// Noise levels that the solver cannot step through.
    #[error("{sampler} cannot sample from sigma {from} to {to}")]
    Sigmas {
        /// Solver.
        sampler: &'static str,
        /// First level.
        from: f64,
        /// Last level.
        to: f64,
    },
    /// An option outside its domain.
    #[error("{sampler}: {name} cannot be {value}")]
    Option {
        /// Solver.
        sampler: &'static str,
        /// Option.
        name: &'static str,
        /// Given value.
        value: f64,
    },
    /// The step size of an adaptive solver vanished or is no number.
    #[error("the adaptive solver diverged: step size {step} at sigma {sigma}")]
    Diverged {
        /// Step in -ln(sigma).
        step: f64,
        /// Where.
        sigma: f64,
    },
    /// The observer asked to stop.
    #[error("sampling was interrupted")]
    Interrupted,
}

/// Result of sampling.
pub type Result<T, E = SampleError> = std::result::Result<T, E>;

/// A solver.
pub trait Sampler: Debug + Send + Sync {
    /// Takes `x` from the first to the last of the run's noise levels. With fewer than two levels it comes back.
    fn sample(&self, run: &mut SamplerRun<'_>, x: Tensor) -> Result<Tensor>;

    /// Changes to the noise levels before anything else happens; the scaling of the result sees them too.
    fn adjust_sigmas(&self, _sigmas: &mut [f64]) {}

    /// Whether `KSampler` asks for one step more and drops the last level above zero.
    fn drops_penultimate_sigma(&self) -> bool {
        false
    }

    /// Whether the masked-out region is noised with a fresh draw (of the seed plus one), not with the initial noise.
    fn redraws_mask_noise(&self) -> bool {
        false
    }
}
