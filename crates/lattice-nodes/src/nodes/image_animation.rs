//! Animations as files.

use std::sync::Arc;

use lattice_graph::{CallContext, Node};
use lattice_media::webp::Compression;
use lattice_media::{Pixels, animation, pixels, webp};

use super::image_files::metadata;
use crate::node::{Choice, Ui, node};
use crate::services::{Folders, OutputNames, Root};
use crate::types::Image;
use crate::{Error, Result};

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![save_animated_png, save_animated_webp]
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
    let level = compress_level.min(9) as u8;
    let file = animation::encode_png(&pictures, (1000.0 / fps) as u64, &metadata(ctx)?, level);
    write(ctx, &filename_prefix, &pictures, "png", &file.map_err(Error::other)?)
}

/// How long WEBP pictures are compressed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Choice)]
enum Effort {
    #[choice("default")]
    Usual,
    #[choice("fastest")]
    Least,
    #[choice("slowest")]
    Most,
}

/// Saves a batch as an animated WEBP file, with the prompt and the workflow inside.
#[node(
    name = "SaveAnimatedWEBP",
    title = "SaveAnimatedWEBP",
    category = "image/animation",
    module = "comfy_extras.nodes_images",
    output_node,
    hidden(prompt, extra_pnginfo)
)]
fn save_animated_webp(
    ctx: &CallContext<'_>,
    images: Image,
    #[widget(default = "ComfyUI")] filename_prefix: String,
    #[widget(default = 6.0, min = 0.01, max = 1000.0, step = 0.01)] fps: f64,
    /// Keep every pixel.
    #[widget(default = true)]
    lossless: bool,
    /// Of the pictures; of the search for a small file where nothing is lost.
    #[widget(default = 80, min = 0, max = 100)]
    quality: u32,
    method: Effort,
) -> Result<Ui> {
    let pictures = pixels::from_images(&images.0)?;
    let method = match method {
        Effort::Least => 0,
        Effort::Usual => 4,
        Effort::Most => 6,
    };
    let compression = Compression { lossless, quality: quality as f32, method };
    let file = webp::encode(&pictures, (1000.0 / fps) as u32, &metadata(ctx)?, compression);
    write(ctx, &filename_prefix, &pictures, "webp", &file.map_err(Error::other)?)
}

/// Writes the file and says that it moves.
fn write(
    ctx: &CallContext<'_>,
    prefix: &str,
    pictures: &[Pixels],
    extension: &str,
    file: &[u8],
) -> Result<Ui> {
    let size = pictures.first().map_or((0, 0), |p| (p.width, p.height));
    let mut names = OutputNames::new(&*ctx.service::<Folders>()?, Root::Output, prefix, size)?;
    let saved = names.write(0, extension, file)?;
    Ok(Ui::new("images", vec![saved.entry()]).and("animated", vec![(pictures.len() != 1).into()]))
}
