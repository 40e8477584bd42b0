//! The multimodal diffusion transformer of Stable Diffusion 3 and 3.5 (Esser et al. 2024).

mod block;
mod config;
mod mmdit;

pub use config::MmditConfig;
pub use mmdit::Mmdit;
