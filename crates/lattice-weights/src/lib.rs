//! Model files as lazy, memory-mapped state dicts; adapters (LoRA and kin) and the patcher.
//!
//! Nothing here knows a network: a [`StateDict`] maps tensor names to [`Weight`] handles, a [`Scope`] is a prefix in it.

pub mod adapters;
mod error;
mod map;
pub mod patcher;
pub mod rounding;
pub mod safetensors;
mod scaled_fp8;
mod state_dict;

pub use error::{Cause, FileError};
pub use lattice_kernels::{StoredDType, Weight};
pub use state_dict::{MissingTensor, Scope, StateDict};
