//! Compositing of premultiplied pictures (T. Porter and T. Duff, "Compositing digital images", 1984), with the further
//! modes that graphics libraries list beside the paper's twelve.

use candle_core::{Result, Tensor, bail};

use crate::resize::{Crop, Method, resize_images, resize_masks};
use crate::{batch, composite, mask, tensor};

/// How a source and a destination become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names are the modes' own
pub enum Mode {
    Add,
    Clear,
    Darken,
    Dst,
    DstAtop,
    DstIn,
    DstOut,
    DstOver,
    Lighten,
    Multiply,
    Overlay,
    Screen,
    Src,
    SrcAtop,
    SrcIn,
    SrcOut,
    SrcOver,
    Xor,
}

impl std::str::FromStr for Mode {
    type Err = candle_core::Error;

    fn from_str(name: &str) -> Result<Self> {
        Ok(match name {
            "ADD" => Self::Add,
            "CLEAR" => Self::Clear,
            "DARKEN" => Self::Darken,
            "DST" => Self::Dst,
            "DST_ATOP" => Self::DstAtop,
            "DST_IN" => Self::DstIn,
            "DST_OUT" => Self::DstOut,
            "DST_OVER" => Self::DstOver,
            "LIGHTEN" => Self::Lighten,
            "MULTIPLY" => Self::Multiply,
            "OVERLAY" => Self::Overlay,
            "SCREEN" => Self::Screen,
            "SRC" => Self::Src,
            "SRC_ATOP" => Self::SrcAtop,
            "SRC_IN" => Self::SrcIn,
            "SRC_OUT" => Self::SrcOut,
            "SRC_OVER" => Self::SrcOver,
            "XOR" => Self::Xor,
            _ => bail!("unknown compositing mode {name:?}"),
        })
    }
}

impl Mode {
    /// Alpha of the result.
    fn alpha(self, sa: f32, da: f32) -> f32 {
        match self {
            Self::Add => (sa + da).clamp(0.0, 1.0),
            Self::Clear => 0.0,
            Self::Dst | Self::SrcAtop => da,
            Self::Src | Self::DstAtop => sa,
            Self::DstIn | Self::SrcIn | Self::Multiply => sa * da,
            Self::DstOut => (1.0 - sa) * da,
            Self::SrcOut => (1.0 - da) * sa,
            Self::DstOver => da + (1.0 - da) * sa,
            Self::SrcOver => sa + (1.0 - sa) * da,
            Self::Darken | Self::Lighten | Self::Overlay | Self::Screen => sa + da - sa * da,
            Self::Xor => (1.0 - da) * sa + (1.0 - sa) * da,
        }
    }

    /// Premultiplied colour of the result from premultiplied colours `s`, `d`.
    fn color(self, s: f32, sa: f32, d: f32, da: f32) -> f32 {
        let outside = (1.0 - da) * s + (1.0 - sa) * d;
        match self {
            Self::Add => (s + d).clamp(0.0, 1.0),
            Self::Clear => 0.0,
            Self::Darken => outside + s.min(d),
            Self::Lighten => outside + s.max(d),
            Self::Dst => d,
            Self::Src => s,
            Self::DstAtop => sa * d + (1.0 - da) * s,
            Self::SrcAtop => da * s + (1.0 - sa) * d,
            Self::DstIn => d * sa,
            Self::SrcIn => s * da,
            Self::DstOut => (1.0 - sa) * d,
            Self::SrcOut => (1.0 - da) * s,
            Self::DstOver => d + (1.0 - da) * s,
            Self::SrcOver => s + (1.0 - sa) * d,
            Self::Multiply => s * d,
            Self::Overlay if 2.0 * d < da => 2.0 * s * d,
            // Not the usual (da - d) (sa - s): the reference pairs each alpha with the other's colour.
            Self::Overlay => sa * da - 2.0 * (da - s) * (sa - d),
            Self::Screen => s + d - s * d,
            Self::Xor => outside,
        }
    }
}

/// Composites images `[B, H, W, C]` with their masks `[B, H, W]` (1 = transparent); the result is an image and its mask.
/// The source and the masks are resized to the destination (bicubic, centre crop), and the shortest batch decides.
///
/// # Errors
/// If a batch is empty.
pub fn composite(
    source: (&Tensor, &Tensor),
    destination: (&Tensor, &Tensor),
    mode: Mode,
) -> Result<(Tensor, Tensor)> {
    let (_, h, w, c) = destination.0.dims4()?;
    let masks = [mask::batched(source.1)?, mask::batched(destination.1)?];
    let batches = [source.0.dim(0)?, destination.0.dim(0)?, masks[0].dim(0)?, masks[1].dim(0)?];
    let n = batches.into_iter().min().unwrap_or(0);
    let image = |t: &Tensor| {
        let t = composite::with_channels(&batch::fit(t, n)?, c)?;
        let fits = (t.dim(1)?, t.dim(2)?) == (h, w);
        tensor::to_vec(&if fits { t } else { resize_images(&t, w, h, Method::Bicubic, Crop::Center)? })
    };
    let alpha = |t: &Tensor| {
        let t = batch::fit(t, n)?;
        let fits = (t.dim(1)?, t.dim(2)?) == (h, w);
        let t = if fits { t } else { resize_masks(&t, w, h, Method::Bicubic, Crop::Center)? };
        Ok::<_, candle_core::Error>(tensor::to_vec(&t)?.into_iter().map(|m| 1.0 - m).collect::<Vec<f32>>())
    };
    let (s, d, sa, da) = (image(source.0)?, image(destination.0)?, alpha(&masks[0])?, alpha(&masks[1])?);
    let mut colors = tensor::filled(&[n, h, w, c], 0f32)?;
    let mut transparency = tensor::filled(&[n, h, w], 0f32)?;
    for i in 0..n * h * w {
        let (sa, da) = (sa[i], da[i]);
        let alpha = mode.alpha(sa, da);
        transparency[i] = 1.0 - alpha;
        for k in i * c..(i + 1) * c {
            let color = mode.color(s[k] * sa, sa, d[k] * da, da);
            colors[k] = if alpha > 1e-5 { (color / alpha).clamp(0.0, 1.0) } else { 0.0 };
        }
    }
    let like = destination.0;
    Ok((tensor::from_vec(colors, (n, h, w, c), like)?, tensor::from_vec(transparency, (n, h, w), like)?))
}
