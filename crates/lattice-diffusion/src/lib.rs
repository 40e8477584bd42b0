//! Everything between the networks: noise, schedules, samplers, guidance, conditioning, prompt weighting, latent
//! formats. Knows no file and no checkpoint key.

pub mod conditioning;
mod denoise;
pub mod guidance;
pub mod latent;
pub mod latent_format;
mod lincomb;
pub mod model;
pub mod model_sampling;
pub mod noise;
pub mod prompt;
pub mod sample;
pub mod samplers;
pub mod schedules;
pub mod tiled;

pub use denoise::{Denoised, Denoiser};
pub use lincomb::lincomb;
pub use model_sampling::{ModelSampling, Prediction, SamplingSettings};
