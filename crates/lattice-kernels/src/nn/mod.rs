//! Layers: a [`Weight`](crate::Weight) (or two) and the settings that no tensor tells.

mod conv;
mod conv3d;
mod embedding;
mod linear;
mod norm;

pub use conv::{Conv2d, Conv2dConfig};
pub use conv3d::{Conv3d, Conv3dConfig, TemporalPadding};
pub use embedding::Embedding;
pub use linear::Linear;
pub use norm::{GroupNorm, LayerNorm, RmsNorm};
