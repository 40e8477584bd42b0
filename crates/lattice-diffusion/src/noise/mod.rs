//! Random numbers: the streams that PyTorch's CPU generator yields for a seed, and the Brownian tree built on them.
//!
//! A picture is a function of its seed only if every bit of its noise is, so this module reproduces the reference
//! bit for bit, on every machine: [`Generator`] is the engine with its uniform, integer and normal draws,
//! [`prepare_noise`] the initial noise of a latent, [`BrownianTree`] the noise of stochastic solvers.

mod brownian;
mod generator;
mod mt19937;
mod normal;
mod prepare;
mod seed_sequence;

pub use brownian::{BrownianError, BrownianTree};
pub use generator::Generator;
pub use mt19937::Mt19937;
pub use normal::NoiseFloat;
pub use prepare::{PreparedNoise, normal_tensor, prepare_noise};
pub use seed_sequence::SeedSequence;
