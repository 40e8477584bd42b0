//! Model files as lazy, memory-mapped state dicts; adapters (LoRA and kin) and the patcher.
//!
//! Nothing here knows a network: a [`StateDict`] maps tensor names to [`Weight`] handles, a [`Scope`] is a prefix in it.

pub mod adapters;
pub mod convert;
mod cursor;
mod error;
pub mod folder;
pub mod gguf;
mod map;
mod open;
pub mod patcher;
pub mod pickle;
mod recode;
pub mod rounding;
pub mod safetensors;
mod scaled_fp8;
mod state_dict;

pub use error::{Cause, FileError};
pub use lattice_kernels::quant::BlockType;
pub use lattice_kernels::{StoredDType, Weight};
pub use open::{Format, open_any};
pub use recode::recode;
pub use state_dict::{MissingTensor, Scope, StateDict};
