//! Model files made from nothing: every value is a pure function of (seed, tensor name, element index).
//!
//! A manifest lists the tensors of a published file (or of one with reduced widths). From it, a seed and a storage
//! type, [`Manifest::write`] makes a safetensors file and [`Manifest::state_dict`] the same bytes in memory, so reference
//! outputs need no weights beside them. The rules are in [`values`]; `tools` in other languages give the same bytes.

mod file;
mod manifest;
mod values;

pub use manifest::Manifest;
pub use values::{TensorPlan, ddpm_table, tensor_key, uniform};
