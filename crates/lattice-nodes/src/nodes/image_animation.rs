//! Animations as files.

use std::sync::Arc;

use lattice_graph::{CallContext, Node};
use lattice_media::{animation, pixels};

use super::image_files::metadata;
use crate::node::{Ui, node};
use crate::services::{Folders, OutputNames, Root};
use crate::types::Image;
use crate::{Error, Result};

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![save_animated_png]
}

/// Saves a batch as an animated PNG, with the prompt and the workflow inside.
#[node(
    name = "SaveAnimatedPNG",
    title = "SaveAnimatedPNG",
    category = "image/animation",
    module = "comfy_extras.nodes_images",
    output_node,
    hidden(prompt, extra_pnginfo)
)]
fn save_animated_png(
    ctx: &CallContext<'_>,
    images: Image,
    #[widget(default = "ComfyUI")] filename_prefix: String,
    #[widget(default = 6.0, min = 0.01, max = 1000.0, step = 0.01)] fps: f64,
    #[widget(default = 4, min = 0, max = 9)] compress_level: u32,
) -> Result<Ui> {
    let pictures = pixels::from_images(&images.0)?;
    let size = pictures.first().map_or((0, 0), |p| (p.width, p.height));
    let level = compress_level.min(9) as u8;
    let file = animation::encode_png(&pictures, (1000.0 / fps) as u64, &metadata(ctx)?, level);
    let mut names = OutputNames::new(&*ctx.service::<Folders>()?, Root::Output, &filename_prefix, size)?;
    let saved = names.write(0, "png", &file.map_err(Error::other)?)?;
    Ok(Ui::new("images", vec![saved.entry()]).and("animated", vec![(pictures.len() != 1).into()]))
}
