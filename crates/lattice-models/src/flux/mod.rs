//! Flux: a transformer of blocks with separate and with joined text and image streams (Black Forest Labs 2024).

mod block;
mod config;
mod control;
mod network;
mod placement;

pub use config::FluxConfig;
pub use control::FluxControl;
pub use network::Flux;
