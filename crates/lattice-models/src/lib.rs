//! The networks, one module per family; detection of a family from its tensors; tokenizers.
//!
//! A network is built from a [`lattice_weights::Scope`] whose names are those of the published file; it never sees
//! samplers, sigmas or nodes. [`network`] holds the traits that the crates above use.

pub mod network;
pub mod tokenizers;

pub use network::{DiffusionNetwork, ForwardOptions, NetworkInput};
