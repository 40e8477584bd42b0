//! The U-Net of Stable Diffusion 1.x, 2.x, SDXL and its refiner (Rombach et al. 2022; Podell et al. 2023).
//!
//! One module for all of them: the number of levels, residual blocks, transformer depths and widths are read from the
//! file ([`config`]), and the blocks are built from what stands there.

mod block;
mod condition;
pub mod config;
mod control;
mod free_u;
mod gligen;
mod merging;
mod place;
mod resnet;
mod tiles;
mod transformer;
mod unet;
mod union;

pub use config::UnetConfig;
pub use control::ControlNet;
pub use gligen::{BoxedText, Gligen, Grounding};
pub use unet::UNet;
