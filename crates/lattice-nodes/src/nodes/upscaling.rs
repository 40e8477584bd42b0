//! Enlarging pictures with a network.

use std::sync::Arc;

use lattice_diffusion::tiled::{Tiles, tile_count, tiled_scale};
use lattice_graph::{CallContext, Node};
use lattice_models::Upscaler;

use crate::node::node;
use crate::services::{Folders, open};
use crate::types::{Image, UpscaleModel};
use crate::{Error, Result};

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![upscale_model_loader, image_upscale_with_model]
}

/// Pixels of the parts that a picture is enlarged in, and what neighbours share.
const TILES: Tiles = Tiles { x: 512, y: 512, overlap: 32 };

/// Loads a network that enlarges pictures: ESRGAN, Real-ESRGAN or its compact variant.
#[node(
    name = "UpscaleModelLoader",
    title = "Load Upscale Model",
    category = "loaders",
    module = "comfy_extras.nodes_upscale_model",
    v3
)]
fn upscale_model_loader(
    ctx: &CallContext<'_>,
    #[combo(files = "upscale_models")] model_name: &str,
) -> Result<UpscaleModel> {
    let dict = open(&ctx.service::<Folders>()?.find("upscale_models", model_name)?)?;
    let network = Upscaler::load(&dict).map_err(Error::other)?;
    Ok(UpscaleModel(Arc::new(network)))
}

/// Enlarges pictures by the factor of the network.
#[node(
    name = "ImageUpscaleWithModel",
    title = "Upscale Image (using Model)",
    category = "image/upscaling",
    module = "comfy_extras.nodes_upscale_model",
    v3
)]
fn image_upscale_with_model(
    ctx: &CallContext<'_>,
    #[widget] upscale_model: UpscaleModel,
    #[widget] image: Image,
) -> Result<Image> {
    let planes = image.planes()?;
    let axes = TILES.axes(upscale_model.0.scale() as f64);
    let total = tile_count(planes.dims(), &axes)? as f64;
    let mut done = 0.0;
    let mut stopped = None;
    let enlarged = tiled_scale(&planes, &axes, |tile| {
        let enlarged = upscale_model.0.forward(tile)?;
        done += 1.0;
        if let Err(error) = ctx.progress(done, total, None) {
            stopped = Some(error);
            candle_core::bail!("stopped")
        }
        Ok(enlarged)
    });
    if let Some(error) = stopped {
        return Err(error.into());
    }
    Ok(Image(enlarged?.clamp(0f32, 1f32)?.permute((0, 2, 3, 1))?.contiguous()?))
}
