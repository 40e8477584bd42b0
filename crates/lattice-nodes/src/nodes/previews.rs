//! Pictures of unfinished latents.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use lattice_diffusion::latent_format::{LatentFormat, RgbPreview};
use lattice_graph::{CallContext, PreviewImage};
use lattice_models::Vae;
use serde_json::Value as Json;

use crate::services::{Folders, Previews, Settings, preview_decoder};
use crate::{Error, Result};

/// Quality of the JPEG files.
const QUALITY: u8 = 95;

/// Makes the previews of one run.
pub(super) struct Previewer {
    method: Method,
    /// Longer side in pixels.
    size: u32,
}

enum Method {
    None,
    Linear(&'static LatentFormat),
    Decoder(Arc<dyn Vae>),
}

impl Previewer {
    /// As the host wants them, for latents of a format.
    ///
    /// # Errors
    /// If the host lent no settings.
    pub(super) fn new(ctx: &CallContext<'_>, format: Option<&'static LatentFormat>) -> Result<Self> {
        let settings = ctx.service::<Settings>()?;
        let method = match (wanted(ctx.extra_data).unwrap_or(settings.previews), format) {
            (Previews::None, _) | (_, None) => Method::None,
            (Previews::LatentToRgb, Some(format)) => Method::Linear(format),
            (wanted @ (Previews::Auto | Previews::Taesd), Some(format)) => match decoder(ctx, format) {
                Ok(Some(decoder)) => Method::Decoder(decoder),
                missing => {
                    complain(wanted, format, missing.err());
                    Method::Linear(format)
                }
            },
        };
        Ok(Self { method, size: settings.preview_size })
    }

    /// A picture of the first item of a prediction in the network's scale; None if none is wanted, or the format has no
    /// map to colours.
    ///
    /// # Errors
    /// If the prediction is no latent of the format.
    pub(super) fn picture(&self, denoised: &Tensor) -> Result<Option<PreviewImage>> {
        let picture = match &self.method {
            Method::None => None,
            Method::Linear(format) => format.preview(denoised)?,
            Method::Decoder(decoder) => Some(decoded(decoder.as_ref(), denoised)?),
        };
        let Some(RgbPreview { width, height, rgb }) = picture else { return Ok(None) };
        let file = lattice_media::jpeg::encode_fitted(&rgb, (width, height), self.size, QUALITY)
            .map_err(Error::other)?;
        Ok(Some(PreviewImage { mime: "image/jpeg", data: file.into() }))
    }
}

/// What the request itself says (`preview_method`), which goes before the settings.
fn wanted(extra_data: &Json) -> Option<Previews> {
    match extra_data.get("preview_method")?.as_str()? {
        "none" => Some(Previews::None),
        "auto" => Some(Previews::Auto),
        "latent2rgb" => Some(Previews::LatentToRgb),
        "taesd" => Some(Previews::Taesd),
        _ => None,
    }
}

/// The tiny decoder of a format, if its file is there.
fn decoder(ctx: &CallContext<'_>, format: &LatentFormat) -> Result<Option<Arc<dyn Vae>>> {
    match &format.taesd_decoder_name {
        Some(name) => preview_decoder(&*ctx.service::<Folders>()?, name),
        None => Ok(None),
    }
}

/// Says why there are only linear previews, unless a missing file is all that is the matter and nobody insisted.
fn complain(wanted: Previews, format: &LatentFormat, error: Option<Error>) {
    match (error, &format.taesd_decoder_name) {
        (Some(error), _) => tracing::warn!("the preview decoder cannot be used: {error}"),
        (None, Some(name)) if wanted == Previews::Taesd => {
            tracing::warn!("previews are linear: there is no {name} in the folder vae_approx");
        }
        (None, _) => {}
    }
}

/// The first item of a latent [B, C, h, w], decoded.
fn decoded(decoder: &dyn Vae, denoised: &Tensor) -> Result<RgbPreview> {
    let first = denoised.narrow(0, 0, 1)?.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.contiguous()?;
    let picture = decoder.decode(&first)?.affine(127.5, 127.5)?.clamp(0f32, 255f32)?;
    let (_, _, height, width) = picture.dims4()?;
    let values = picture.squeeze(0)?.permute((1, 2, 0))?.flatten_all()?.to_vec1::<f32>()?;
    Ok(RgbPreview { width, height, rgb: values.into_iter().map(|v| v as u8).collect() })
}
