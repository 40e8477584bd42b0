//! Sizes and shapes of pictures: scaling, cutting, turning, padding, joining.

use std::sync::Arc;

use lattice_graph::Node;
use lattice_media::resize::{Crop, Method, resize_images};
use lattice_media::transform::{self, Padding, Side};

use super::MAX_RESOLUTION;
use crate::node::{Choice, node};
use crate::types::{Image, Mask};
use crate::{Error, Result};

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![
        image_scale,
        image_scale_by,
        image_scale_to_total_pixels,
        image_scale_to_max_dimension,
        image_crop,
        image_rotate,
        image_flip,
        image_stitch,
        resize_and_pad_image,
        image_pad_for_outpaint,
        flux_kontext_image_scale,
    ]
}

/// A size from a real number: rounded half to even.
fn rounded(size: f64) -> usize {
    size.round_ties_even() as usize
}

/// Resizes pictures to a width and a height. A size of 0 keeps the aspect ratio; with both 0 nothing changes.
#[node(name = "ImageScale", title = "Upscale Image", category = "image/upscaling", module = "nodes")]
fn image_scale(
    image: Image,
    #[choice("nearest-exact", "bilinear", "area", "bicubic", "lanczos")] upscale_method: &str,
    #[widget(default = 512, min = 0, max = MAX_RESOLUTION, step = 1)] width: usize,
    #[widget(default = 512, min = 0, max = MAX_RESOLUTION, step = 1)] height: usize,
    #[choice("disabled", "center")] crop: &str,
) -> Result<Image> {
    let (_, h, w, _) = image.0.dims4()?;
    let (width, height) = match (width, height) {
        (0, 0) => return Ok(image),
        (0, height) => (rounded(w as f64 * height as f64 / h as f64).max(1), height),
        (width, 0) => (width, rounded(h as f64 * width as f64 / w as f64).max(1)),
        sizes => sizes,
    };
    Ok(Image(resize_images(&image.0, width, height, upscale_method.parse()?, crop.parse()?)?))
}

/// Resizes pictures by a factor.
#[node(name = "ImageScaleBy", title = "Upscale Image By", category = "image/upscaling", module = "nodes")]
fn image_scale_by(
    image: Image,
    #[choice("nearest-exact", "bilinear", "area", "bicubic", "lanczos")] upscale_method: &str,
    #[widget(default = 1.0, min = 0.01, max = 8.0, step = 0.01)] scale_by: f64,
) -> Result<Image> {
    scaled(&image, upscale_method, scale_by)
}

fn scaled(image: &Image, method: &str, factor: f64) -> Result<Image> {
    let (_, h, w, _) = image.0.dims4()?;
    let (width, height) = (rounded(w as f64 * factor), rounded(h as f64 * factor));
    Ok(Image(resize_images(&image.0, width, height, method.parse()?, Crop::Disabled)?))
}

/// Resizes pictures to a number of megapixels (of 1024 x 1024), keeping their aspect ratio.
#[node(
    name = "ImageScaleToTotalPixels",
    category = "image/upscaling",
    module = "comfy_extras.nodes_post_processing",
    v3
)]
fn image_scale_to_total_pixels(
    #[widget] image: Image,
    #[combo("nearest-exact", "bilinear", "area", "bicubic", "lanczos")] upscale_method: &str,
    #[widget(default = 1.0, min = 0.01, max = 16.0, step = 0.01)] megapixels: f64,
) -> Result<Image> {
    let (_, h, w, _) = image.0.dims4()?;
    let factor = ((megapixels * 1024.0 * 1024.0).trunc() / (w * h) as f64).sqrt();
    scaled(&image, upscale_method, factor)
}

/// Resizes pictures so that their longer side has a size, keeping their aspect ratio.
#[node(
    name = "ImageScaleToMaxDimension",
    title = "ImageScaleToMaxDimension",
    category = "image/upscaling",
    module = "comfy_extras.nodes_images"
)]
fn image_scale_to_max_dimension(
    image: Image,
    #[choice("area", "lanczos", "bilinear", "nearest-exact", "bilinear", "bicubic")] upscale_method: &str,
    #[widget(default = 512, min = 0, max = MAX_RESOLUTION, step = 1)] largest_size: usize,
) -> Result<Image> {
    let (_, h, w, _) = image.0.dims4()?;
    let shorter = |short: usize, long: usize| rounded(short as f64 / long as f64 * largest_size as f64);
    let (width, height) = match h.cmp(&w) {
        std::cmp::Ordering::Greater => (shorter(w, h), largest_size),
        std::cmp::Ordering::Less => (largest_size, shorter(h, w)),
        std::cmp::Ordering::Equal => (largest_size, largest_size),
    };
    Ok(Image(resize_images(&image.0, width, height, upscale_method.parse()?, Crop::Disabled)?))
}

/// Cuts a rectangle out of pictures.
#[node(
    name = "ImageCrop",
    title = "Image Crop",
    category = "image/transform",
    module = "comfy_extras.nodes_images"
)]
fn image_crop(
    image: Image,
    #[widget(default = 512, min = 1, max = MAX_RESOLUTION, step = 1)] width: usize,
    #[widget(default = 512, min = 1, max = MAX_RESOLUTION, step = 1)] height: usize,
    #[widget(default = 0, min = 0, max = MAX_RESOLUTION, step = 1)] x: usize,
    #[widget(default = 0, min = 0, max = MAX_RESOLUTION, step = 1)] y: usize,
) -> Result<Image> {
    Ok(Image(transform::crop(&image.0, x, y, width, height)?))
}

/// Turns clockwise.
#[derive(Choice, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rotation {
    #[choice("none")]
    None,
    #[choice("90 degrees")]
    Quarter,
    #[choice("180 degrees")]
    Half,
    #[choice("270 degrees")]
    ThreeQuarters,
}

/// What is mirrored.
#[derive(Choice, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flip {
    #[choice("x-axis: vertically")]
    Rows,
    #[choice("y-axis: horizontally")]
    Columns,
}

/// Turns pictures clockwise.
#[node(
    name = "ImageRotate",
    title = "ImageRotate",
    category = "image/transform",
    module = "comfy_extras.nodes_images"
)]
fn image_rotate(image: Image, rotation: Rotation) -> Result<Image> {
    Ok(Image(transform::rotate(&image.0, 1, rotation as usize)?))
}

/// Mirrors pictures.
#[node(
    name = "ImageFlip",
    title = "ImageFlip",
    category = "image/transform",
    module = "comfy_extras.nodes_images"
)]
fn image_flip(image: Image, flip_method: Flip) -> Result<Image> {
    let axis = if flip_method == Flip::Rows { 1 } else { 2 };
    Ok(Image(image.0.flip(&[axis])?.contiguous()?))
}

/// Colours of bars and margins.
fn named_color(name: &str) -> [f32; 3] {
    match name {
        "white" => [1.0; 3],
        "red" => [1.0, 0.0, 0.0],
        "green" => [0.0, 1.0, 0.0],
        "blue" => [0.0, 0.0, 1.0],
        _ => [0.0; 3],
    }
}

/// Joins two pictures side by side or one over the other, with a bar between them. The shorter batch repeats its last
/// picture.
#[node(
    name = "ImageStitch",
    title = "Image Stitch",
    category = "image/transform",
    module = "comfy_extras.nodes_images"
)]
fn image_stitch(
    image1: Image,
    #[choice("right", "down", "left", "up")]
    #[widget(default = "right")]
    direction: &str,
    #[widget(default = true)] match_image_size: bool,
    #[widget(default = 0, min = 0, max = 1024, step = 2)] spacing_width: usize,
    #[choice("white", "black", "red", "green", "blue")]
    #[widget(default = "white")]
    spacing_color: &str,
    image2: Option<Image>,
) -> Result<Image> {
    let Some(image2) = image2 else { return Ok(image1) };
    let side = match direction {
        "right" => Side::Right,
        "down" => Side::Down,
        "left" => Side::Left,
        "up" => Side::Up,
        _ => return Err(Error::value(format!("unknown direction {direction}"))),
    };
    let color = named_color(spacing_color);
    Ok(Image(transform::stitch(&image1.0, &image2.0, side, match_image_size, spacing_width, color)?))
}

/// Fits pictures into a size, keeping their aspect ratio, with margins of one colour.
#[node(
    name = "ResizeAndPadImage",
    title = "ResizeAndPadImage",
    category = "image/transform",
    module = "comfy_extras.nodes_images"
)]
fn resize_and_pad_image(
    image: Image,
    #[widget(default = 512, min = 1, max = MAX_RESOLUTION, step = 1)] target_width: usize,
    #[widget(default = 512, min = 1, max = MAX_RESOLUTION, step = 1)] target_height: usize,
    #[choice("white", "black")] padding_color: &str,
    #[choice("area", "bicubic", "nearest-exact", "bilinear", "lanczos")] interpolation: &str,
) -> Result<Image> {
    let [value, ..] = named_color(padding_color);
    let method = interpolation.parse()?;
    Ok(Image(transform::resize_and_pad(&image.0, target_width, target_height, value, method)?))
}

/// Adds grey margins and the mask for painting them.
#[node(
    name = "ImagePadForOutpaint",
    title = "Pad Image for Outpainting",
    category = "image",
    module = "nodes"
)]
fn image_pad_for_outpaint(
    image: Image,
    #[widget(default = 0, min = 0, max = MAX_RESOLUTION, step = 8)] left: usize,
    #[widget(default = 0, min = 0, max = MAX_RESOLUTION, step = 8)] top: usize,
    #[widget(default = 0, min = 0, max = MAX_RESOLUTION, step = 8)] right: usize,
    #[widget(default = 0, min = 0, max = MAX_RESOLUTION, step = 8)] bottom: usize,
    #[widget(default = 40, min = 0, max = MAX_RESOLUTION, step = 1)] feathering: usize,
) -> Result<(Image, Mask)> {
    let padding = Padding { left, top, right, bottom };
    let (image, mask) = transform::pad_for_outpaint(&image.0, padding, feathering)?;
    Ok((Image(image), Mask(mask)))
}

/// Sizes (width, height) that Flux Kontext was trained on, from tall to square; the wide ones are these turned.
const KONTEXT_SIZES: [(usize, usize); 9] = [
    (672, 1568),
    (688, 1504),
    (720, 1456),
    (752, 1392),
    (800, 1328),
    (832, 1248),
    (880, 1184),
    (944, 1104),
    (1024, 1024),
];

/// Resizes pictures to the size that Flux Kontext knows best of those with about their aspect ratio.
#[node(
    name = "FluxKontextImageScale",
    category = "advanced/conditioning/flux",
    module = "comfy_extras.nodes_flux",
    v3
)]
fn flux_kontext_image_scale(#[widget] image: Image) -> Result<Image> {
    let (_, height, width, _) = image.0.dims4()?;
    if height == 0 || width == 0 {
        return Err(Error::value("the picture is empty"));
    }
    let aspect = width as f64 / height as f64;
    let off = |&(w, h): &(usize, usize)| (aspect - w as f64 / h as f64).abs();
    let sizes = KONTEXT_SIZES.iter().flat_map(|&(w, h)| [(w, h), (h, w)]);
    let (width, height) = sizes.min_by(|a, b| off(a).total_cmp(&off(b))).unwrap_or((width, height));
    Ok(Image(resize_images(&image.0, width, height, Method::Lanczos, Crop::Center)?))
}
