//! Everything between the networks: noise, schedules, samplers, guidance, conditioning, prompt weighting, latent
//! formats. Knows no file and no checkpoint key.

mod denoise;
pub mod prompt;

pub use denoise::{Denoised, Denoiser};
