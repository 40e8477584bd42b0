//! Batches of pictures.

use std::sync::Arc;

use candle_core::Tensor;
use lattice_diffusion::noise::{Generator, normal_tensor};
use lattice_graph::{CallContext, Node};
use lattice_media::resize::{Crop, Method, resize_images};
use lattice_media::{batch, composite};

use crate::node::node;
use crate::types::Image;
use crate::{Error, Result};

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![
        image_batch,
        repeat_image_batch,
        image_from_batch,
        rebatch_images,
        get_image_size,
        image_add_noise,
    ]
}

/// Puts two batches of pictures into one. The second is resized to the first.
#[node(name = "ImageBatch", title = "Batch Images", category = "image", module = "nodes")]
fn image_batch(image1: Image, image2: Image) -> Result<Image> {
    let (_, h, w, c1) = image1.0.dims4()?;
    let (_, h2, w2, c2) = image2.0.dims4()?;
    let channels = c1.max(c2);
    let first = composite::with_channels(&image1.0, channels)?;
    let mut second = composite::with_channels(&image2.0, channels)?;
    if (h2, w2) != (h, w) {
        second = resize_images(&second, w, h, Method::Bilinear, Crop::Center)?;
    }
    Ok(Image(Tensor::cat(&[first, second], 0)?))
}

/// Repeats a whole batch.
#[node(
    name = "RepeatImageBatch",
    title = "RepeatImageBatch",
    category = "image/batch",
    module = "comfy_extras.nodes_images"
)]
fn repeat_image_batch(
    image: Image,
    #[widget(default = 1, min = 1, max = 4096)] amount: usize,
) -> Result<Image> {
    Ok(Image(batch::repeat(&image.0, amount)?))
}

/// Takes pictures out of a batch.
#[node(
    name = "ImageFromBatch",
    title = "ImageFromBatch",
    category = "image/batch",
    module = "comfy_extras.nodes_images"
)]
fn image_from_batch(
    image: Image,
    #[widget(default = 0, min = 0, max = 4095)] batch_index: usize,
    #[widget(default = 1, min = 1, max = 4096)] length: usize,
) -> Result<Image> {
    Ok(Image(batch::slice(&image.0, batch_index, length)?))
}

/// Deals the pictures of a list out into batches of one size.
#[node(
    name = "RebatchImages",
    title = "Rebatch Images",
    category = "image/batch",
    module = "comfy_extras.nodes_rebatch",
    v3,
    input_is_list
)]
fn rebatch_images(
    #[widget] images: Vec<Image>,
    #[widget(default = 1, min = 1, max = 4096)] batch_size: usize,
) -> Result<Vec<Image>> {
    let mut singles = Vec::new();
    for image in &images {
        for i in 0..image.0.dim(0)? {
            singles.push(image.0.narrow(0, i, 1)?);
        }
    }
    singles.chunks(batch_size.max(1)).map(|group| Ok(Image(Tensor::cat(group, 0)?))).collect()
}

/// Tells the size of pictures and how many there are.
#[node(
    name = "GetImageSize",
    title = "Get Image Size",
    category = "image",
    module = "comfy_extras.nodes_images",
    hidden(unique_id),
    outputs("width", "height", "batch_size")
)]
fn get_image_size(ctx: &CallContext<'_>, image: Image) -> Result<(usize, usize, usize)> {
    let (batch, height, width, _) = image.0.dims4()?;
    ctx.show_text(format!("width: {width}, height: {height}\n batch size: {batch}"));
    Ok((width, height, batch))
}

/// Adds Gaussian noise to pictures.
#[node(
    name = "ImageAddNoise",
    title = "ImageAddNoise",
    category = "image",
    module = "comfy_extras.nodes_images"
)]
fn image_add_noise(
    image: Image,
    #[widget(default = 0, min = 0, max = 0xffff_ffff_ffff_ffff, control_after_generate = true)] seed: u64,
    #[widget(default = 0.5, min = 0.0, max = 1.0, step = 0.01)] strength: f64,
) -> Result<Image> {
    let noise = normal_tensor(&mut Generator::new(seed), image.0.shape()).map_err(Error::other)?;
    Ok(Image((image.0 + (noise * strength)?)?.clamp(0f32, 1f32)?))
}
