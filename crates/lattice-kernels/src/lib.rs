//! The tensor operations that decide speed, and the stored weights they read.
//!
//! Networks are written against [`candle_core::Tensor`] for activations, [`Weight`] for parameters and the layers of
//! [`nn`]; nothing in this crate knows any particular network. Activations are f32 on the CPU.

// Kernels are generic over the instruction set and must be inlined into the functions that enable it.
#![allow(clippy::inline_always)]

mod activation;
mod allocator;
mod attention;
mod conv;
mod exchange;
mod gemm;
mod linear;
mod low_rank;
pub mod nn;
mod norm;
pub mod ops;
mod pointwise;
mod pool;
pub mod quant;
mod scratch;
mod simd;
mod spectrum;
mod stored;
mod tensor;
#[cfg(test)]
mod testing;
mod weight;
mod widen;

pub use activation::Activation;
pub use allocator::{keep_freed_memory, release_freed_memory};
pub use low_rank::{LowRank, add_low_rank};
pub use pool::on_pool;
pub use simd::instruction_set;
pub use weight::{StoredDType, Weight};
