//! The multimodal diffusion transformer of Stable Diffusion 3 and 3.5 (Esser et al. 2024).

mod block;
mod config;
mod control;
mod mmdit;

pub use config::MmditConfig;
pub use control::{PictureChange, Sd3Control, Sd35Control};
pub use mmdit::Mmdit;
