//! Pictures from and to files.

use std::path::PathBuf;
use std::sync::Arc;

use lattice_graph::{CallContext, Extensions, Inputs, Node};
use lattice_media::decode::{self, Channel, Decoded, Limits};
use lattice_media::json::ascii_json;
use lattice_media::{pixels, png, svg};
use serde_json::Value as Json;

use super::MAX_RESOLUTION;
use crate::node::{Ui, node};
use crate::services::{Folders, OutputNames, Root, Settings, file_hash};
use crate::types::{Image, Mask, Svg};
use crate::{Error, Result};

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![
        save_image,
        preview_image,
        save_svg,
        load_image,
        load_image_mask,
        load_image_output,
        webcam_capture
    ]
}

/// zlib levels: results are worth the time, previews are not.
const SAVE_LEVEL: u8 = 4;
const PREVIEW_LEVEL: u8 = 1;

/// Saves pictures as PNG files in the output folder, with the prompt and the workflow inside.
#[node(
    name = "SaveImage",
    title = "Save Image",
    category = "image",
    module = "nodes",
    output_node,
    hidden(prompt, extra_pnginfo)
)]
fn save_image(
    ctx: &CallContext<'_>,
    /// The pictures to save.
    images: Image,
    /// Start of the file names. May name folders and use %width%, %height%, %year%, %month%, %day%, %hour%, %minute%,
    /// %second% and %batch_num%.
    #[widget(default = "ComfyUI")]
    filename_prefix: String,
) -> Result<Ui> {
    write_pngs(ctx, &images, Root::Output, &filename_prefix, SAVE_LEVEL)
}

/// Shows pictures without keeping them.
#[node(
    name = "PreviewImage",
    title = "Preview Image",
    category = "image",
    module = "nodes",
    output_node,
    hidden(prompt, extra_pnginfo)
)]
fn preview_image(ctx: &CallContext<'_>, images: Image) -> Result<Ui> {
    preview_pngs(ctx, &images, PREVIEW_LEVEL)
}

/// Writes pictures into the temporary folder. A node keeps its file names as long as it is in successive prompts.
pub(super) fn preview_pngs(ctx: &CallContext<'_>, images: &Image, level: u8) -> Result<Ui> {
    let prefix = {
        let mut state = ctx.state.lock();
        let kept = state.as_ref().and_then(|prefix| prefix.downcast_ref::<String>()).cloned();
        let prefix = kept.unwrap_or_else(|| format!("ComfyUI_temp_{}", random_letters(5)));
        *state = Some(Box::new(prefix.clone()));
        prefix
    };
    write_pngs(ctx, images, Root::Temp, &prefix, level)
}

/// Letters that no other node or run of the program is likely to draw.
fn random_letters(count: usize) -> String {
    use std::hash::{BuildHasher, Hasher};
    // The standard library seeds its hash maps from the system; that is random enough for a file name.
    let mut bits = std::collections::hash_map::RandomState::new().build_hasher().finish();
    let letters = (0..count).map(|_| {
        let letter = b'a' + (bits % 26) as u8;
        bits /= 26;
        char::from(letter)
    });
    letters.collect()
}

fn write_pngs(ctx: &CallContext<'_>, images: &Image, root: Root, prefix: &str, level: u8) -> Result<Ui> {
    let pictures = pixels::from_images(&images.0)?;
    let size = pictures.first().map_or((0, 0), |p| (p.width, p.height));
    let texts = metadata(ctx)?;
    let mut names = OutputNames::new(&*ctx.service::<Folders>()?, root, prefix, size)?;
    let mut saved = Vec::new();
    for (i, picture) in pictures.iter().enumerate() {
        ctx.check_interrupt()?;
        let file = png::encode(picture, &texts, level).map_err(Error::other)?;
        saved.push(names.write(i, "png", &file)?.entry());
    }
    Ok(Ui::new("images", saved))
}

/// Saves drawings as SVG files in the output folder, with the prompt and the workflow inside.
#[node(
    name = "SaveSVGNode",
    title = "SaveSVGNode",
    category = "image/save",
    module = "comfy_extras.nodes_images",
    output_node,
    hidden(prompt, extra_pnginfo)
)]
fn save_svg(
    ctx: &CallContext<'_>,
    svg: Svg,
    #[widget(default = "svg/ComfyUI")] filename_prefix: String,
) -> Result<Ui> {
    let texts = metadata(ctx)?;
    let mut names = OutputNames::new(&*ctx.service::<Folders>()?, Root::Output, &filename_prefix, (0, 0))?;
    let mut saved = Vec::new();
    for (i, document) in svg.0.iter().enumerate() {
        let file = svg::with_metadata(document, &texts);
        saved.push(names.write(i, "svg", file.as_bytes())?.entry());
    }
    Ok(Ui::new("images", saved))
}

/// What saved files say about their making: the prompt, then whatever the client sent along; nothing if the host says
/// so.
pub(super) fn metadata(ctx: &CallContext<'_>) -> Result<Vec<(String, String)>> {
    if !ctx.service::<Settings>()?.metadata {
        return Ok(Vec::new());
    }
    let extra = ctx.extra_data.get("extra_pnginfo").and_then(Json::as_object);
    let extra = extra.into_iter().flatten().map(|(key, value)| (key.clone(), ascii_json(value)));
    Ok(std::iter::once(("prompt".to_owned(), ascii_json(ctx.prompt))).chain(extra).collect())
}

/// Endings of files that are pictures.
const IMAGE_EXTENSIONS: [&str; 10] =
    ["png", "jpg", "jpeg", "jpe", "webp", "gif", "bmp", "tif", "tiff", "ico"];

/// Pictures directly in the input folder.
fn input_images(extensions: &Extensions) -> Vec<String> {
    let folders = extensions.get::<Folders>();
    folders.map(|folders| folders.files(Root::Input, &IMAGE_EXTENSIONS)).unwrap_or_default()
}

/// Loads a picture, or all the pictures of an animation as a batch. The mask is 1 where the file is transparent.
#[node(
    name = "LoadImage",
    title = "Load Image",
    category = "image",
    module = "nodes",
    fingerprint = image_hash,
    validate(image, with = image_exists)
)]
fn load_image(
    ctx: &CallContext<'_>,
    #[choice(from = input_images)]
    #[widget(image_upload = true)]
    image: &str,
) -> Result<(Image, Mask)> {
    let decoded = decoded(ctx, image)?;
    Ok((Image(decoded.image().map_err(Error::other)?), Mask(decoded.mask().map_err(Error::other)?)))
}

/// Loads one channel of a picture as a mask. Alpha is turned round: transparent is 1.
#[node(
    name = "LoadImageMask",
    title = "Load Image (as Mask)",
    category = "mask",
    module = "nodes",
    fingerprint = image_hash,
    validate(image, with = image_exists)
)]
fn load_image_mask(
    ctx: &CallContext<'_>,
    #[choice(from = input_images)]
    #[widget(image_upload = true)]
    image: &str,
    #[choice("alpha", "red", "green", "blue")] channel: &str,
) -> Result<Mask> {
    let channel = match channel {
        "red" => Channel::Red,
        "green" => Channel::Green,
        "blue" => Channel::Blue,
        _ => Channel::Alpha,
    };
    Ok(Mask(decoded(ctx, image)?.channel(channel).map_err(Error::other)?))
}

/// Loads a picture that was made before.
#[node(
    name = "LoadImageOutput",
    title = "Load Image (from Outputs)",
    category = "image",
    module = "nodes",
    experimental,
    fingerprint = image_hash,
    validate(image, with = image_exists)
)]
fn load_image_output(
    ctx: &CallContext<'_>,
    #[kind("COMBO")]
    #[widget(
        image_upload = true,
        image_folder = "output",
        remote = {
            "route": "/internal/files/output",
            "refresh_button": true,
            "control_after_refresh": "first"
        }
    )]
    image: &str,
) -> Result<(Image, Mask)> {
    load_image(ctx, image)
}

/// Loads the picture that the front end took with a camera.
#[node(
    name = "WebcamCapture",
    title = "Webcam Capture",
    category = "image",
    module = "comfy_extras.nodes_webcam",
    fingerprint = image_hash,
    validate(image, with = image_exists)
)]
fn webcam_capture(
    ctx: &CallContext<'_>,
    #[kind("WEBCAM")]
    #[widget]
    image: &str,
    #[name("width")]
    #[widget(default = 0, min = 0, max = MAX_RESOLUTION, step = 1)]
    _width: usize,
    #[name("height")]
    #[widget(default = 0, min = 0, max = MAX_RESOLUTION, step = 1)]
    _height: usize,
    #[name("capture_on_queue")]
    #[widget(default = true)]
    _capture_on_queue: bool,
) -> Result<Image> {
    Ok(load_image(ctx, image)?.0)
}

fn decoded(ctx: &CallContext<'_>, name: &str) -> Result<Decoded> {
    let path = ctx.service::<Folders>()?.annotated(name, Root::Input)?;
    let file = std::fs::read(&path).map_err(Error::file(&path))?;
    decode::decode(&file, Limits::default()).map_err(|e| Error::value(format!("{name}: {e}")))
}

/// The file that the input `image` names.
fn image_path(extensions: &Extensions, inputs: &Inputs) -> Result<PathBuf> {
    let name = inputs.get("image").and_then(|value| value.as_json()?.as_str());
    let name = name.ok_or_else(|| Error::value("the name of the picture is no text"))?;
    let folders = extensions.get::<Folders>().ok_or_else(|| Error::value("there is no input folder"))?;
    folders.annotated(name, Root::Input)
}

fn image_hash(extensions: &Extensions, inputs: &Inputs) -> Result<Json> {
    Ok(file_hash(&image_path(extensions, inputs)?)?.into())
}

/// Any file that exists will do, in the list or not. A linked name is judged when it is there.
fn image_exists(extensions: &Extensions, inputs: &Inputs) -> Result<(), String> {
    let Some(name) = inputs.get("image").and_then(|value| value.as_json()?.as_str()) else { return Ok(()) };
    let exists = image_path(extensions, inputs).is_ok_and(|path| path.is_file());
    if exists { Ok(()) } else { Err(format!("Invalid image file: {name}")) }
}
