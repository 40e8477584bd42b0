//! Pictures.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use lattice_graph::Node;

use super::MAX_RESOLUTION;
use crate::Result;
use crate::node::node;
use crate::tensors::filled;
use crate::types::Image;

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![image_invert, empty_image]
}

/// Turns each picture into its negative.
#[node(name = "ImageInvert", title = "Invert Image", category = "image", module = "nodes")]
fn image_invert(image: Image) -> Result<Image> {
    Ok(Image(image.0.affine(-1.0, 1.0)?))
}

/// Makes pictures of one colour.
#[node(name = "EmptyImage", title = "EmptyImage", category = "image", module = "nodes")]
fn empty_image(
    #[widget(default = 512, min = 1, max = MAX_RESOLUTION, step = 1)] width: usize,
    #[widget(default = 512, min = 1, max = MAX_RESOLUTION, step = 1)] height: usize,
    #[widget(default = 1, min = 1, max = 4096)] batch_size: usize,
    #[widget(default = 0, min = 0, max = 0xFF_FFFF, step = 1, display = "color")] color: u32,
) -> Result<Image> {
    let channels = [16, 8, 0].map(|shift| ((color >> shift) & 0xFF) as f32 / 255.0);
    let pixel = Tensor::new(&channels, &Device::Cpu)?;
    Ok(Image(filled(&[batch_size, height, width, 3], 0.0)?.broadcast_add(&pixel)?))
}
