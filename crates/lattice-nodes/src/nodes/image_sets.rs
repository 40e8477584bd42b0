//! Folders of pictures as batches, with their captions.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use lattice_graph::{CallContext, Extensions, Inputs, Node};
use lattice_media::resize::{self, Crop, Method};
use lattice_media::{Limits, decode};
use serde_json::{Value as Json, json};

use super::text::encoded_text;
use crate::node::{Choice, node};
use crate::services::{Folders, Root};
use crate::types::{Clip, Conditioning, Image};
use crate::{Error, Result};

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![load_image_set, load_image_text_set]
}

/// Endings of the pictures of a set.
const ENDINGS: [&str; 4] = ["png", "jpg", "jpeg", "webp"];

/// How pictures of several sizes come to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Choice)]
enum Fit {
    /// Not at all: it is an error.
    #[choice("None")]
    Same,
    /// Resized.
    #[choice("Stretch")]
    Stretch,
    /// Cut on the right and below.
    #[choice("Crop")]
    Crop,
    /// In the middle of black.
    #[choice("Pad")]
    Pad,
}

/// Loads all pictures of a folder as one batch, in the order of their names.
#[node(
    name = "LoadImageSetFromFolderNode",
    title = "Load Image Dataset from Folder",
    category = "loaders",
    module = "comfy_extras.nodes_train",
    experimental,
    fingerprint = state_of_files
)]
fn load_image_set(
    ctx: &CallContext<'_>,
    /// A folder below the input folder.
    #[choice(from = input_folders)]
    #[widget]
    folder: &str,
    /// How pictures come to the size of the first one.
    #[widget(default = "None")]
    resize_method: Option<Fit>,
) -> Result<Image> {
    let folder = ctx.service::<Folders>()?.annotated(folder, Root::Input)?;
    batch(ctx, &pictures(&folder)?, resize_method.unwrap_or(Fit::Same), (None, None)).map(Image)
}

/// Loads all pictures of a folder as one batch, and the texts beside them (`a.txt` beside `a.png`) as prompts. Those of a
/// sub-folder `3_name` are taken three times.
#[node(
    name = "LoadImageTextSetFromFolderNode",
    title = "Load Image and Text Dataset from Folder",
    category = "loaders",
    module = "comfy_extras.nodes_train",
    experimental,
    fingerprint = state_of_files
)]
fn load_image_text_set(
    ctx: &CallContext<'_>,
    /// A folder below the input folder.
    #[choice(from = input_folders)]
    #[widget]
    folder: &str,
    #[widget] clip: Clip,
    #[widget(default = "None")] resize_method: Option<Fit>,
    /// Width of the pictures; -1 is that of the first one.
    #[widget(default = -1, min = -1, max = 10000, step = 1)]
    width: Option<i64>,
    /// Height of the pictures; -1 is that of the first one.
    #[widget(default = -1, min = -1, max = 10000, step = 1)]
    height: Option<i64>,
) -> Result<(Image, Conditioning)> {
    let folder = ctx.service::<Folders>()?.annotated(folder, Root::Input)?;
    let files = repeated_pictures(&folder)?;
    let side = |n: Option<i64>| n.and_then(|n| usize::try_from(n).ok()).filter(|&n| n > 0);
    let size = (side(width), side(height));
    let images = batch(ctx, &files, resize_method.unwrap_or(Fit::Same), size)?;
    let mut prompts = Vec::with_capacity(files.len());
    let mut last: Option<(&PathBuf, Conditioning)> = None;
    for file in &files {
        ctx.check_interrupt()?;
        let prompt = match last.take() {
            Some((same, prompt)) if same == file => prompt,
            _ => encoded_text(&clip, &caption(file)?)?,
        };
        prompts.extend(prompt.0.iter().cloned());
        last = Some((file, prompt));
    }
    Ok((Image(images), Conditioning(prompts)))
}

/// Folders that may hold a set.
fn input_folders(extensions: &Extensions) -> Vec<String> {
    extensions.get::<Folders>().map(|folders| folders.subfolders(Root::Input)).unwrap_or_default()
}

/// Entries of a folder, sorted by name.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(Error::file(folder))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort_unstable();
    Ok(paths)
}

/// Pictures directly in a folder.
fn pictures(folder: &Path) -> Result<Vec<PathBuf>> {
    let is_picture = |path: &PathBuf| {
        let ending = path.extension().and_then(|e| e.to_str()).map(str::to_lowercase);
        path.is_file() && ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str()))
    };
    Ok(entries(folder)?.into_iter().filter(is_picture).collect())
}

/// Pictures of a folder and of the folders in it, as often as those say.
fn repeated_pictures(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut all = pictures(folder)?;
    for inner in entries(folder)?.into_iter().filter(|path| path.is_dir()) {
        let times = inner.file_name().and_then(|name| name.to_str()?.split_once('_')?.0.parse().ok());
        for file in pictures(&inner)? {
            all.extend(std::iter::repeat_n(file, times.unwrap_or(1)));
        }
    }
    Ok(all)
}

/// The text beside a picture; none is an empty one.
fn caption(picture: &Path) -> Result<String> {
    let path = picture.with_extension("txt");
    match std::fs::read(&path) {
        Ok(text) => Ok(String::from_utf8_lossy(&text).trim().to_owned()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(e) => Err(Error::file(&path)(e)),
    }
}

/// The pictures as one batch [B, H, W, 3] of the given size, or of the first one's.
fn batch(
    ctx: &CallContext<'_>,
    files: &[PathBuf],
    fit: Fit,
    (width, height): (Option<usize>, Option<usize>),
) -> Result<Tensor> {
    let mut images: Vec<Tensor> = Vec::with_capacity(files.len());
    let mut size = None;
    for file in files {
        ctx.check_interrupt()?;
        let bytes = std::fs::read(file).map_err(Error::file(file))?;
        let named = |e| Error::value(format!("{}: {e}", file.display()));
        let decoded = decode::decode(&bytes, Limits::default()).map_err(named)?;
        let image = decoded.image().map_err(named)?.narrow(0, 0, 1)?;
        let (_, own_height, own_width, _) = image.dims4()?;
        let (width, height) = *size.get_or_insert((width.unwrap_or(own_width), height.unwrap_or(own_height)));
        images.push(fitted(&image, fit, (width, height)).map_err(|e| {
            Error::value(format!("{}: {e}", file.file_name().unwrap_or_default().to_string_lossy()))
        })?);
    }
    if images.is_empty() {
        return Err(Error::value("the folder holds no pictures (.png, .jpg, .jpeg, .webp)"));
    }
    Ok(Tensor::cat(&images, 0)?)
}

/// A picture [1, H, W, 3] at a size.
fn fitted(image: &Tensor, fit: Fit, (width, height): (usize, usize)) -> Result<Tensor> {
    let (_, own_height, own_width, _) = image.dims4()?;
    if (own_width, own_height) == (width, height) {
        return Ok(image.clone());
    }
    // How much of an axis is taken, from where, and where it goes.
    let kept = |own: usize, wanted: usize| own.min(wanted);
    let (rows, columns) = (kept(own_height, height), kept(own_width, width));
    let centred = |outer: usize, inner: usize| (outer - inner) / 2;
    let (from, to) = match fit {
        Fit::Same => {
            return Err(Error::value(format!(
                "it has {own_width}x{own_height} pixels, the others {width}x{height}; choose how to resize"
            )));
        }
        Fit::Stretch => {
            return Ok(resize::resize_images(image, width, height, Method::Lanczos, Crop::Disabled)?);
        }
        Fit::Crop => ((0, 0), (0, 0)),
        Fit::Pad => (
            (centred(own_height, rows), centred(own_width, columns)),
            (centred(height, rows), centred(width, columns)),
        ),
    };
    let part = image.narrow(1, from.0, rows)?.narrow(2, from.1, columns)?;
    let black = |shape: [usize; 4]| Tensor::zeros(&shape[..], DType::F32, &Device::Cpu);
    let row =
        Tensor::cat(&[black([1, rows, to.1, 3])?, part, black([1, rows, width - columns - to.1, 3])?], 2)?;
    Ok(Tensor::cat(&[black([1, to.0, width, 3])?, row, black([1, height - rows - to.0, width, 3])?], 1)?)
}

/// Names, sizes and times of all files below the folder: another state makes another batch.
fn state_of_files(extensions: &Extensions, inputs: &Inputs) -> Result<Json> {
    let name = inputs.get("folder").and_then(|value| value.as_json()?.as_str());
    let name = name.ok_or_else(|| Error::value("the name of the folder is no text"))?;
    let folders = extensions.get::<Folders>().ok_or_else(|| Error::value("there is no input folder"))?;
    let folder = folders.annotated(name, Root::Input)?;
    let files = walkdir::WalkDir::new(&folder).sort_by_file_name().into_iter().flatten();
    let state = |entry: walkdir::DirEntry| {
        let metadata = entry.metadata().ok()?;
        let modified = metadata.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
        Some(json!([entry.path().to_string_lossy(), metadata.len(), modified.as_nanos().to_string()]))
    };
    Ok(files.filter_map(state).collect())
}
