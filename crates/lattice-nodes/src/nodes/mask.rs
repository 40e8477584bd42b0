//! Masks, and pictures put together with them.

use std::sync::Arc;

use lattice_graph::{CallContext, Node};
use lattice_media::composite::{Placement, paste, paste_images, with_channels};
use lattice_media::resize::{Crop, Method, resize_masks};
use lattice_media::{batch, mask, porter_duff};

use super::{MAX_RESOLUTION, image_files};
use crate::node::{Ui, node};
use crate::tensors::filled;
use crate::types::{Image, Latent, Mask};
use crate::{Error, Result};

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![
        mask_to_image,
        image_to_mask,
        image_color_to_mask,
        solid_mask,
        invert_mask,
        crop_mask,
        mask_composite,
        feather_mask,
        grow_mask,
        threshold_mask,
        mask_preview,
        image_composite_masked,
        latent_composite_masked,
        porter_duff_image_composite,
        split_image_with_alpha,
        join_image_with_alpha,
    ]
}

/// Makes grey pictures of masks.
#[node(
    name = "MaskToImage",
    title = "Convert Mask to Image",
    category = "mask",
    module = "comfy_extras.nodes_mask"
)]
fn mask_to_image(mask: Mask) -> Result<Image> {
    Ok(Image(mask::to_images(&mask.0)?))
}

/// Takes one channel of pictures as a mask.
#[node(
    name = "ImageToMask",
    title = "Convert Image to Mask",
    category = "mask",
    module = "comfy_extras.nodes_mask"
)]
fn image_to_mask(image: Image, #[choice("red", "green", "blue", "alpha")] channel: &str) -> Result<Mask> {
    let index = ["red", "green", "blue", "alpha"].iter().position(|name| *name == channel);
    let index = index.filter(|&i| image.0.dim(3).is_ok_and(|channels| i < channels));
    let index = index.ok_or_else(|| Error::value(format!("the picture has no channel {channel}")))?;
    Ok(Mask(image.0.narrow(3, index, 1)?.squeeze(3)?.contiguous()?))
}

/// Selects the pixels of one colour.
#[node(
    name = "ImageColorToMask",
    title = "ImageColorToMask",
    category = "mask",
    module = "comfy_extras.nodes_mask"
)]
fn image_color_to_mask(
    image: Image,
    #[widget(default = 0, min = 0, max = 0xFF_FFFF, step = 1, display = "color")] color: u32,
) -> Result<Mask> {
    Ok(Mask(mask::of_color(&image.0, color)?))
}

/// Makes a mask of one value.
#[node(name = "SolidMask", title = "SolidMask", category = "mask", module = "comfy_extras.nodes_mask")]
fn solid_mask(
    #[widget(default = 1.0, min = 0.0, max = 1.0, step = 0.01)] value: f32,
    #[widget(default = 512, min = 1, max = MAX_RESOLUTION, step = 1)] width: usize,
    #[widget(default = 512, min = 1, max = MAX_RESOLUTION, step = 1)] height: usize,
) -> Result<Mask> {
    Ok(Mask(filled(&[1, height, width], value)?))
}

/// Selects what was not selected.
#[node(name = "InvertMask", title = "InvertMask", category = "mask", module = "comfy_extras.nodes_mask")]
fn invert_mask(mask: Mask) -> Result<Mask> {
    Ok(Mask(mask.0.affine(-1.0, 1.0)?))
}

/// Cuts a rectangle out of masks.
#[node(name = "CropMask", title = "CropMask", category = "mask", module = "comfy_extras.nodes_mask")]
fn crop_mask(
    mask: Mask,
    #[widget(default = 0, min = 0, max = MAX_RESOLUTION, step = 1)] x: usize,
    #[widget(default = 0, min = 0, max = MAX_RESOLUTION, step = 1)] y: usize,
    #[widget(default = 512, min = 1, max = MAX_RESOLUTION, step = 1)] width: usize,
    #[widget(default = 512, min = 1, max = MAX_RESOLUTION, step = 1)] height: usize,
) -> Result<Mask> {
    Ok(Mask(mask::crop(&mask.0, x, y, width, height)?))
}

/// Combines a mask into another.
#[node(
    name = "MaskComposite",
    title = "MaskComposite",
    category = "mask",
    module = "comfy_extras.nodes_mask"
)]
fn mask_composite(
    destination: Mask,
    source: Mask,
    #[widget(default = 0, min = 0, max = MAX_RESOLUTION, step = 1)] x: usize,
    #[widget(default = 0, min = 0, max = MAX_RESOLUTION, step = 1)] y: usize,
    #[choice("multiply", "add", "subtract", "and", "or", "xor")] operation: &str,
) -> Result<Mask> {
    Ok(Mask(mask::combine(&destination.0, &source.0, x, y, operation.parse()?)?))
}

/// Fades masks out towards their sides.
#[node(name = "FeatherMask", title = "FeatherMask", category = "mask", module = "comfy_extras.nodes_mask")]
fn feather_mask(
    mask: Mask,
    #[widget(default = 0, min = 0, max = MAX_RESOLUTION, step = 1)] left: usize,
    #[widget(default = 0, min = 0, max = MAX_RESOLUTION, step = 1)] top: usize,
    #[widget(default = 0, min = 0, max = MAX_RESOLUTION, step = 1)] right: usize,
    #[widget(default = 0, min = 0, max = MAX_RESOLUTION, step = 1)] bottom: usize,
) -> Result<Mask> {
    Ok(Mask(mask::feather(&mask.0, mask::Feather { left, top, right, bottom })?))
}

/// Grows or shrinks the selected area.
#[node(name = "GrowMask", title = "GrowMask", category = "mask", module = "comfy_extras.nodes_mask")]
fn grow_mask(
    mask: Mask,
    #[widget(default = 0, min = -16384, max = MAX_RESOLUTION, step = 1)] expand: i64,
    #[widget(default = true)] tapered_corners: bool,
) -> Result<Mask> {
    Ok(Mask(mask::grow(&mask.0, expand, tapered_corners)?))
}

/// Selects what exceeds a value.
#[node(
    name = "ThresholdMask",
    title = "ThresholdMask",
    category = "mask",
    module = "comfy_extras.nodes_mask"
)]
fn threshold_mask(
    mask: Mask,
    #[widget(default = 0.5, min = 0.0, max = 1.0, step = 0.01)] value: f64,
) -> Result<Mask> {
    Ok(Mask(mask::threshold(&mask.0, value)?))
}

/// Shows masks as grey pictures without keeping them.
#[node(
    name = "MaskPreview",
    title = "MaskPreview",
    category = "mask",
    module = "comfy_extras.nodes_mask",
    output_node,
    hidden(prompt, extra_pnginfo)
)]
fn mask_preview(ctx: &CallContext<'_>, mask: Mask) -> Result<Ui> {
    image_files::preview_pngs(ctx, &Image(mask::to_images(&mask.0)?), 4)
}

/// Pastes pictures onto others, where a mask says so.
#[node(
    name = "ImageCompositeMasked",
    title = "ImageCompositeMasked",
    category = "image",
    module = "comfy_extras.nodes_mask"
)]
fn image_composite_masked(
    destination: Image,
    source: Image,
    #[widget(default = 0, min = 0, max = MAX_RESOLUTION, step = 1)] x: i64,
    #[widget(default = 0, min = 0, max = MAX_RESOLUTION, step = 1)] y: i64,
    #[widget(default = false)] resize_source: bool,
    mask: Option<Mask>,
) -> Result<Image> {
    let at = Placement { x, y, unit: 1, resize_source };
    let mask = mask.map(|m| m.0);
    Ok(Image(paste_images(&destination.0, &source.0, mask.as_ref(), at)?))
}

/// Pastes latents onto others, where a mask says so.
#[node(
    name = "LatentCompositeMasked",
    title = "LatentCompositeMasked",
    category = "latent",
    module = "comfy_extras.nodes_mask"
)]
fn latent_composite_masked(
    destination: Latent,
    source: Latent,
    #[widget(default = 0, min = 0, max = MAX_RESOLUTION, step = 8)] x: i64,
    #[widget(default = 0, min = 0, max = MAX_RESOLUTION, step = 8)] y: i64,
    #[widget(default = false)] resize_source: bool,
    mask: Option<Mask>,
) -> Result<Latent> {
    let at = Placement { x, y, unit: 8, resize_source };
    let mask = mask.map(|m| m.0);
    let samples = paste(&destination.samples, &source.samples, mask.as_ref(), at)?;
    Ok(destination.with_samples(samples))
}

/// Composites pictures by a Porter-Duff mode. Alphas are masks: 1 is transparent.
#[node(
    name = "PorterDuffImageComposite",
    title = "Porter-Duff Image Composite",
    category = "mask/compositing",
    module = "comfy_extras.nodes_compositing",
    v3
)]
fn porter_duff_image_composite(
    #[widget] source: Image,
    #[widget] source_alpha: Mask,
    #[widget] destination: Image,
    #[widget] destination_alpha: Mask,
    #[combo(
        "ADD", "CLEAR", "DARKEN", "DST", "DST_ATOP", "DST_IN", "DST_OUT", "DST_OVER", "LIGHTEN", "MULTIPLY",
        "OVERLAY", "SCREEN", "SRC", "SRC_ATOP", "SRC_IN", "SRC_OUT", "SRC_OVER", "XOR"
    )]
    #[widget(default = "DST")]
    mode: &str,
) -> Result<(Image, Mask)> {
    let (source, destination) = ((&source.0, &source_alpha.0), (&destination.0, &destination_alpha.0));
    let (image, alpha) = porter_duff::composite(source, destination, mode.parse()?)?;
    Ok((Image(image), Mask(alpha)))
}

/// Splits pictures into colour and transparency.
#[node(
    name = "SplitImageWithAlpha",
    title = "Split Image with Alpha",
    category = "mask/compositing",
    module = "comfy_extras.nodes_compositing",
    v3
)]
fn split_image_with_alpha(#[widget] image: Image) -> Result<(Image, Mask)> {
    let (_, _, _, c) = image.0.dims4()?;
    let alpha = with_channels(&image.0, 4)?.narrow(3, 3, 1)?.squeeze(3)?;
    Ok((Image(image.0.narrow(3, 0, c.min(3))?.contiguous()?), Mask(alpha.affine(-1.0, 1.0)?)))
}

/// Gives pictures an alpha channel: transparent where the mask is 1.
#[node(
    name = "JoinImageWithAlpha",
    title = "Join Image with Alpha",
    category = "mask/compositing",
    module = "comfy_extras.nodes_compositing",
    v3
)]
fn join_image_with_alpha(#[widget] image: Image, #[widget] alpha: Mask) -> Result<Image> {
    let (n, h, w, c) = image.0.dims4()?;
    let alpha = mask::batched(&alpha.0)?;
    let n = n.min(alpha.dim(0)?);
    let alpha = resize_masks(&batch::fit(&alpha, n)?, w, h, Method::Bilinear, Crop::Disabled)?;
    let colors = batch::fit(&image.0, n)?.narrow(3, 0, c.min(3))?;
    let opacity = alpha.affine(-1.0, 1.0)?.unsqueeze(3)?;
    Ok(Image(candle_core::Tensor::cat(&[colors, opacity], 3)?))
}
