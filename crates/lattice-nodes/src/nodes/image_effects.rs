//! Colours and textures of pictures: blending, blurring, quantising, edges.

use std::sync::Arc;

use lattice_graph::Node;
use lattice_media::{blend, canny, color, filter, morphology, quantize};

use crate::Result;
use crate::node::node;
use crate::types::Image;

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![
        image_blend,
        image_blur,
        image_sharpen,
        image_quantize,
        morphology_node,
        canny_node,
        image_rgb_to_yuv,
        image_yuv_to_rgb,
    ]
}

/// Mixes two pictures by a blend mode.
#[node(
    name = "ImageBlend",
    category = "image/postprocessing",
    module = "comfy_extras.nodes_post_processing",
    v3
)]
fn image_blend(
    #[widget] image1: Image,
    #[widget] image2: Image,
    #[widget(default = 0.5, min = 0.0, max = 1.0, step = 0.01)] blend_factor: f64,
    #[combo("normal", "multiply", "screen", "overlay", "soft_light", "difference")] blend_mode: &str,
) -> Result<Image> {
    Ok(Image(blend::blend(&image1.0, &image2.0, blend_factor, blend_mode.parse()?)?))
}

/// Blurs pictures with a Gaussian.
#[node(
    name = "ImageBlur",
    category = "image/postprocessing",
    module = "comfy_extras.nodes_post_processing",
    v3
)]
fn image_blur(
    #[widget] image: Image,
    #[widget(default = 1, min = 1, max = 31, step = 1)] blur_radius: usize,
    #[widget(default = 1.0, min = 0.1, max = 10.0, step = 0.1)] sigma: f64,
) -> Result<Image> {
    Ok(Image(filter::on_images(&image.0, |planes| filter::blur(planes, blur_radius, sigma))?))
}

/// Sharpens pictures by what a Gaussian blur takes off.
#[node(
    name = "ImageSharpen",
    category = "image/postprocessing",
    module = "comfy_extras.nodes_post_processing",
    v3
)]
fn image_sharpen(
    #[widget] image: Image,
    #[widget(default = 1, min = 1, max = 31, step = 1)] sharpen_radius: usize,
    #[widget(default = 1.0, min = 0.1, max = 10.0, step = 0.01)] sigma: f64,
    #[widget(default = 1.0, min = 0.0, max = 5.0, step = 0.01)] alpha: f64,
) -> Result<Image> {
    if sharpen_radius == 0 {
        return Ok(image);
    }
    let sharpen = |planes: &_| filter::sharpen(planes, sharpen_radius, sigma, alpha)?.clamp(0f32, 1f32);
    Ok(Image(filter::on_images(&image.0, sharpen)?))
}

/// Reduces each picture to a palette of its own.
#[node(
    name = "ImageQuantize",
    category = "image/postprocessing",
    module = "comfy_extras.nodes_post_processing",
    v3
)]
fn image_quantize(
    #[widget] image: Image,
    #[widget(default = 256, min = 1, max = 256, step = 1)] colors: usize,
    #[combo("none", "floyd-steinberg", "bayer-2", "bayer-4", "bayer-8", "bayer-16")] dither: &str,
) -> Result<Image> {
    Ok(Image(quantize::quantize(&image.0, colors, dither.parse()?)?))
}

/// Erodes or dilates pictures, or combines the two.
#[node(
    name = "Morphology",
    title = "ImageMorphology",
    category = "image/postprocessing",
    module = "comfy_extras.nodes_morphology",
    v3
)]
fn morphology_node(
    #[widget] image: Image,
    #[combo("erode", "dilate", "open", "close", "gradient", "bottom_hat", "top_hat")] operation: &str,
    #[widget(default = 3, min = 3, max = 999, step = 1)] kernel_size: usize,
) -> Result<Image> {
    let operation = operation.parse()?;
    Ok(Image(filter::on_images(&image.0, |planes| morphology::morphology(planes, operation, kernel_size))?))
}

/// Draws the edges of pictures, white on black.
#[node(name = "Canny", category = "image/preprocessors", module = "comfy_extras.nodes_canny", v3)]
fn canny_node(
    #[widget] image: Image,
    #[widget(default = 0.4, min = 0.01, max = 0.99, step = 0.01)] low_threshold: f64,
    #[widget(default = 0.8, min = 0.01, max = 0.99, step = 0.01)] high_threshold: f64,
) -> Result<Image> {
    Ok(Image(canny::canny(&image.0, low_threshold, high_threshold)?))
}

/// Splits pictures into luma and chroma.
#[node(
    name = "ImageRGBToYUV",
    category = "image/batch",
    module = "comfy_extras.nodes_morphology",
    v3,
    outputs("Y", "U", "V")
)]
fn image_rgb_to_yuv(#[widget] image: Image) -> Result<(Image, Image, Image)> {
    let [y, u, v] = color::rgb_to_yuv(&image.0)?;
    Ok((Image(y), Image(u), Image(v)))
}

/// Joins luma and chroma to pictures.
#[node(name = "ImageYUVToRGB", category = "image/batch", module = "comfy_extras.nodes_morphology", v3)]
fn image_yuv_to_rgb(
    #[name("Y")]
    #[widget]
    y: Image,
    #[name("U")]
    #[widget]
    u: Image,
    #[name("V")]
    #[widget]
    v: Image,
) -> Result<Image> {
    Ok(Image(color::yuv_to_rgb(&y.0, &u.0, &v.0)?))
}
