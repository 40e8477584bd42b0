//! The tensor operations that decide speed, and the stored weights they read.
//!
//! Networks are written against [`candle_core::Tensor`] for activations, [`Weight`] for parameters and the layers of
//! [`nn`]; nothing in this crate knows any particular network. Activations are f32 on the CPU.

pub mod nn;
pub mod ops;
pub mod quant;
mod weight;

pub use weight::{StoredDType, Weight};
