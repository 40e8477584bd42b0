//! Flux: a transformer of blocks with separate and with joined text and image streams (Black Forest Labs 2024).

mod block;
mod config;
mod network;
mod placement;

pub use config::FluxConfig;
pub use network::Flux;
