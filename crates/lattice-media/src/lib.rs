//! Images, masks and metadata in and out of files, and the arithmetic on pixels that knows no network.
//!
//! Tensor layouts: an *image* is f32 `[B, H, W, C]` in 0..1 with C = 3 (RGB), 4 (RGBA) or 1; a *mask* is f32 `[B, H, W]` in
//! 0..1; *planes* are `[B, C, H, W]` (latents) or `[B, C, T, H, W]` (video latents). Functions keep the dtype and device
//! of what they are given and compute in f32.

pub mod animation;
pub mod batch;
pub mod blend;
pub mod canny;
pub mod color;
pub mod composite;
pub mod decode;
mod error;
pub mod exif;
pub mod filter;
pub mod jpeg;
pub mod json;
pub mod mask;
mod median_cut;
pub mod metadata;
pub mod morphology;
pub mod pixels;
pub mod png;
mod png_decode;
pub mod porter_duff;
pub mod quantize;
pub mod resize;
pub mod svg;
mod tensor;
pub mod transform;
pub mod webp;
mod webp_decode;

pub use decode::{Decoded, Limits, Picture};
pub use error::{MediaError, Result};
pub use pixels::Pixels;
