//! Diffusers folders: one sub-folder per component, each with one weights file or several with an index.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde::Deserialize;

use crate::error::{Cause, FileError, display};
use crate::{StateDict, open_any};

/// Sub-folders that hold weights of a model; their names become prefixes.
const COMPONENTS: [&str; 8] = [
    "unet",
    "transformer",
    "vae",
    "text_encoder",
    "text_encoder_2",
    "text_encoder_3",
    "image_encoder",
    "controlnet",
];
/// Names of weights files, most wanted first.
const STEMS: [&str; 3] = ["diffusion_pytorch_model", "model", "pytorch_model"];
const EXTENSIONS: [&str; 4] = ["safetensors", "fp16.safetensors", "bin", "fp16.bin"];
/// Where an index says which file holds which tensor.
const INDEX: &str = ".index.json";

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Opens a folder: a component with its own names, or a whole pipeline whose components' tensors get the sub-folder's name in front.
pub(crate) fn open(path: &Path) -> Result<StateDict, FileError> {
    if let Some(dict) = component(path)? {
        return Ok(dict);
    }
    let mut tensors = IndexMap::new();
    for name in COMPONENTS {
        let folder = path.join(name);
        if !folder.is_dir() {
            continue;
        }
        if let Some(dict) = component(&folder)? {
            tensors.extend(dict.iter().map(|(tensor, weight)| (format!("{name}.{tensor}"), weight.clone())));
        }
    }
    if tensors.is_empty() {
        let detail = "neither weights files nor component folders (unet, transformer, vae, text_encoder)";
        return Err(Cause::malformed("folder", detail).of(&display(path)));
    }
    Ok(StateDict::new(&display(path), tensors, BTreeMap::new()))
}

/// The weights of one component; `None` if the folder has no weights file.
fn component(folder: &Path) -> Result<Option<StateDict>, FileError> {
    if let Some(index) = index_file(folder)? {
        return sharded(folder, &index).map(Some);
    }
    let found = STEMS
        .iter()
        .flat_map(|stem| EXTENSIONS.iter().map(move |extension| folder.join(format!("{stem}.{extension}"))))
        .find(|path| path.is_file());
    found.map(|path| open_any(&path)).transpose()
}

fn index_file(folder: &Path) -> Result<Option<PathBuf>, FileError> {
    let io = |e: std::io::Error| Cause::Io(e).of(&display(folder));
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.to_string_lossy().ends_with(INDEX) {
            found.insert(path);
        }
    }
    // Of several the safetensors one, and the one without a variant.
    let rank = |p: &PathBuf| (!p.to_string_lossy().contains("safetensors"), p.as_os_str().len());
    Ok(found.into_iter().min_by_key(rank))
}

fn sharded(folder: &Path, index: &Path) -> Result<StateDict, FileError> {
    let name = display(index);
    let text = std::fs::read(index).map_err(|e| Cause::Io(e).of(&name))?;
    let dict = from_index(&name, &text, |file| open_any(&folder.join(file)))?;
    Ok(dict.with_source(&display(folder)))
}

/// The tensors that an index (`*.index.json`) lists, each from the file it names; `open` opens one of those, which are plain file names,
/// and `name` stands for the index in messages.
///
/// # Errors
/// If the index is none, names anything but a file beside it, or a tensor that its file does not hold; and what `open` fails with.
pub fn from_index(
    name: &str,
    text: &[u8],
    mut open: impl FnMut(&str) -> Result<StateDict, FileError>,
) -> Result<StateDict, FileError> {
    let index: Index = serde_json::from_slice(text).map_err(|e| Cause::malformed("index", e).of(name))?;
    let mut shards = BTreeMap::new();
    let mut tensors = IndexMap::with_capacity(index.weight_map.len());
    for (tensor, file) in &index.weight_map {
        let shard = match shards.entry(file) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                // An index must not reach outside its folder.
                if Path::new(file).file_name().is_none_or(|f| f != file.as_str()) {
                    let detail = format!("`{file}` is no plain file name");
                    return Err(Cause::malformed("index", detail).of(name));
                }
                entry.insert(open(file)?)
            }
        };
        let weight = shard
            .get(tensor)
            .ok_or_else(|| Cause::malformed("index", format!("{file} does not hold it")).at(name, tensor))?;
        tensors.insert(tensor.clone(), weight.clone());
    }
    Ok(StateDict::new(name, tensors, BTreeMap::new()))
}
