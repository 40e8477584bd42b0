//! The arithmetic of latent nodes on tensors `[B, C, H, W]` or
//! `[B, C, T, H, W]`. Positions and sizes are in latent cells.

mod arithmetic;
mod operation;

pub use arithmetic::{
    Axis, add, blend, composite, concat, crop, cut, fit_to, interpolate, repeat_index, resized_to, subtract,
};
pub use operation::Operation;
