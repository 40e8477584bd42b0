//! Tiny autoencoders of the folder `vae_approx`: in place of a VAE, and for previews.

use std::sync::Arc;

use lattice_models::vae::{Taesd, Vae};

use super::{Folders, open};
use crate::{Error, Result};

/// The folder of their files.
const FOLDER: &str = "vae_approx";

/// A published kind of TAESD: two files, `<name>_encoder` and `<name>_decoder`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TinyVae {
    /// How workflows and files name it.
    pub name: &'static str,
    /// Factor from the VAE's scale to the network's, in which it works.
    scale: f64,
    /// Subtracted before that.
    shift: f64,
}

/// Every kind that nodes offer.
const KINDS: [TinyVae; 4] = [
    TinyVae { name: "taesd", scale: 0.18215, shift: 0.0 },
    TinyVae { name: "taesdxl", scale: 0.13025, shift: 0.0 },
    TinyVae { name: "taesd3", scale: 1.5305, shift: 0.0609 },
    TinyVae { name: "taef1", scale: 0.3611, shift: 0.1159 },
];

impl TinyVae {
    /// Those of which both files are there.
    pub fn available(folders: &Folders) -> Vec<Self> {
        let files = folders.list(FOLDER);
        let there = |half: &str| files.iter().any(|file| is_called(file, half));
        let both = |kind: &Self| there(&kind.half("encoder")) && there(&kind.half("decoder"));
        KINDS.into_iter().filter(both).collect()
    }

    /// The kind of that name.
    pub fn named(name: &str) -> Option<Self> {
        KINDS.into_iter().find(|kind| kind.name == name)
    }

    fn half(self, half: &str) -> String {
        format!("{}_{half}", self.name)
    }

    /// Opens both halves.
    ///
    /// # Errors
    /// If one is missing or broken.
    pub fn load(self, folders: &Folders) -> Result<Taesd> {
        let half = |half: &str| {
            let name = self.half(half);
            let file = find(folders, &name)
                .ok_or_else(|| Error::value(format!("there is no file {name} in the folder {FOLDER}")))?;
            open(&folders.find(FOLDER, &file)?)
        };
        let (encoder, decoder) = (half("encoder")?, half("decoder")?);
        Taesd::new(Some(&encoder.root()), Some(&decoder.root()), self.scale, self.shift).map_err(Error::other)
    }
}

/// The decoder of that name for latents in the network's scale; None if there is no such file.
///
/// # Errors
/// If it is broken.
pub fn preview_decoder(folders: &Folders, name: &str) -> Result<Option<Arc<dyn Vae>>> {
    let Some(file) = find(folders, name) else { return Ok(None) };
    let file = open(&folders.find(FOLDER, &file)?)?;
    let decoder = Taesd::new(None, Some(&file.root()), 1.0, 0.0).map_err(Error::other)?;
    Ok(Some(Arc::new(decoder)))
}

/// The first file of that name, whatever its ending and folder.
fn find(folders: &Folders, name: &str) -> Option<String> {
    folders.list(FOLDER).into_iter().find(|file| is_called(file, name))
}

/// Whether a path's last part is the name and an ending.
fn is_called(path: &str, name: &str) -> bool {
    let last = path.rsplit(['/', '\\']).next().unwrap_or(path);
    last.rsplit_once('.').is_some_and(|(stem, _)| stem == name)
}
