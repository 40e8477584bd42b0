//! The networks, one module per family; detection of a family from its tensors; tokenizers.
//!
//! A network is built from a [`lattice_weights::Scope`] whose names are those of the published file; it never sees
//! samplers, sigmas or nodes. [`network`] holds the traits that the crates above use.

pub mod assemble;
mod clip_layer;
pub mod control;
mod convert;
pub mod detect;
pub mod diffusers;
mod embedding;
mod error;
pub mod flux;
mod hint_encoder;
mod hints;
pub mod hypernetwork;
mod layers;
pub mod network;
pub mod options;
mod rope;
pub mod sd3;
pub mod sd_unet;
mod shuffle;
pub mod style_model;
pub mod t2i_adapter;
pub mod text;
pub mod tokenizers;
mod transformer;
pub mod upscale;
pub mod vae;
pub mod vision;

pub use control::ControlNetwork;
pub use detect::{Checkpoint, DetectError};
pub use error::ModelError;
pub use hints::Hints;
pub use hypernetwork::Hypernetwork;
pub use network::{DiffusionNetwork, NetworkInput};
pub use options::ForwardOptions;
pub use style_model::StyleModel;
pub use t2i_adapter::T2iAdapter;
pub use text::{TextEncoder, TextInput, TextOptions, TextOutput, Token};
pub use upscale::Upscaler;
pub use vae::Vae;
pub use vision::ClipVision;
