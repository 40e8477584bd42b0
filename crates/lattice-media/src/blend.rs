//! Blend modes of two images.

use candle_core::{Result, Tensor, bail};

use crate::resize::{Crop, Method, resize_images};
use crate::{batch, composite, tensor};

/// How two samples become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The second.
    Normal,
    /// Their product.
    Multiply,
    /// The product of their negatives, negated.
    Screen,
    /// Multiply where the first is dark, screen where it is light.
    Overlay,
    /// The W3C compositing specification's soft light.
    SoftLight,
    /// First minus second.
    Difference,
}

impl std::str::FromStr for Mode {
    type Err = candle_core::Error;

    fn from_str(name: &str) -> Result<Self> {
        Ok(match name {
            "normal" => Self::Normal,
            "multiply" => Self::Multiply,
            "screen" => Self::Screen,
            "overlay" => Self::Overlay,
            "soft_light" => Self::SoftLight,
            "difference" => Self::Difference,
            _ => bail!("unknown blend mode {name:?}"),
        })
    }
}

impl Mode {
    fn mix(self, a: f32, b: f32) -> f32 {
        let dodge = |a: f32| if a <= 0.25 { ((16.0 * a - 12.0) * a + 4.0) * a } else { a.sqrt() };
        match self {
            Self::Normal => b,
            Self::Multiply => a * b,
            Self::Screen => 1.0 - (1.0 - a) * (1.0 - b),
            Self::Overlay if a <= 0.5 => 2.0 * a * b,
            Self::Overlay => 1.0 - 2.0 * (1.0 - a) * (1.0 - b),
            Self::SoftLight if b <= 0.5 => a - (1.0 - 2.0 * b) * a * (1.0 - a),
            Self::SoftLight => a + (2.0 * b - 1.0) * (dodge(a) - a),
            Self::Difference => a - b,
        }
    }
}

/// first (1 - factor) + blend(first, second) factor, clamped to 0..1. Images `[B, H, W, C]`; the second is cut to the
/// channels of the first and resized (bicubic, centre crop) to its size.
///
/// # Errors
/// If the batches are of different sizes, none of them 1.
pub fn blend(first: &Tensor, second: &Tensor, factor: f64, mode: Mode) -> Result<Tensor> {
    let (_, h, w, c) = first.dims4()?;
    let mut second = composite::with_channels(second, c)?;
    if (second.dim(1)?, second.dim(2)?) != (h, w) {
        second = resize_images(&second, w, h, Method::Bicubic, Crop::Center)?;
    }
    let (first, second) = batch::common(first, &second)?;
    let factor = factor as f32;
    let mix = |(a, b): (f32, f32)| (a * (1.0 - factor) + mode.mix(a, b) * factor).clamp(0.0, 1.0);
    let mixed = tensor::to_vec(&first)?.into_iter().zip(tensor::to_vec(&second)?).map(mix).collect();
    tensor::from_vec(mixed, first.dims(), &first)
}
