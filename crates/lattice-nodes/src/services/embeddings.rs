//! Textual-inversion embeddings in files (Gal et al. 2022).

use std::path::PathBuf;
use std::sync::Arc;

use lattice_diffusion::prompt::{EmbeddingError, EmbeddingSource};
use lattice_weights::{StateDict, Weight};

use super::{Folders, ModelFile, models};

/// Endings tried behind a name that is no file by itself.
const EXTENSIONS: [&str; 4] = ["", ".safetensors", ".pt", ".bin"];

/// The embedding folders.
pub struct Embeddings(pub Arc<Folders>);

/// The embeddings as one text encoder sees them.
pub struct EncoderEmbeddings<'a> {
    folders: &'a Folders,
    encoder: &'static str,
    width: usize,
}

impl Embeddings {
    /// For the encoder of that name (`clip_l`, ...), whose rows are `width` wide.
    pub fn of(&self, encoder: &'static str, width: usize) -> EncoderEmbeddings<'_> {
        EncoderEmbeddings { folders: &self.0, encoder, width }
    }
}

impl EncoderEmbeddings<'_> {
    /// The file of a name: as it stands or with an ending, in the folders or anywhere below them.
    fn find(&self, name: &str) -> Option<PathBuf> {
        let names: Vec<String> = EXTENSIONS.iter().map(|ending| format!("{name}{ending}")).collect();
        let path = |name: &str| match self.folders.find("embeddings", name).ok()? {
            ModelFile::Path(path) => path.is_file().then_some(path),
            ModelFile::Builtin { .. } => None,
        };
        names.iter().find_map(|name| path(name)).or_else(|| {
            let all = self.folders.list("embeddings");
            let below = |wanted: &String| all.iter().find(|listed| listed.ends_with(&format!("/{wanted}")));
            names.iter().find_map(below).and_then(|listed| path(listed))
        })
    }
}

impl EmbeddingSource for EncoderEmbeddings<'_> {
    fn load(&self, name: &str) -> Result<Option<Vec<Arc<[f32]>>>, EmbeddingError> {
        let Some(path) = self.find(name) else { return Ok(None) };
        let fail = |reason: String| EmbeddingError { name: name.to_owned(), reason };
        let dict = models::open(&ModelFile::Path(path)).map_err(|e| fail(e.to_string()))?;
        let tensors = choose(&dict, self.encoder);
        if tensors.is_empty() {
            return Err(fail("the file holds no tensor".into()));
        }
        let mut rows = Vec::new();
        for tensor in tensors {
            let width = tensor.dims().last().copied().unwrap_or(0);
            if width != self.width {
                let wanted = self.width;
                return Err(fail(format!(
                    "its rows are {width} wide, the text encoder {} needs {wanted}",
                    self.encoder
                )));
            }
            rows.extend(tensor.to_f32().chunks_exact(width.max(1)).map(Arc::from));
        }
        Ok(Some(rows))
    }
}

/// The tensors of a file that are meant for an encoder: those of a bundle, that of the encoder's name, or the first.
fn choose<'a>(dict: &'a StateDict, encoder: &str) -> Vec<&'a Weight> {
    let bundled = |name: &str| {
        let inner =
            name.strip_prefix("bundle_emb.").and_then(|rest| rest.split_once('.')).map(|(_, inner)| inner);
        inner.is_some_and(|inner| inner == encoder || inner.starts_with("string_to_param."))
    };
    let bundle: Vec<_> = dict.iter().filter(|(name, _)| bundled(name)).map(|(_, weight)| weight).collect();
    if !bundle.is_empty() {
        return bundle;
    }
    let first_parameter =
        || dict.iter().find(|(name, _)| name.starts_with("string_to_param.")).map(|(_, w)| w);
    let chosen =
        first_parameter().or_else(|| dict.get(encoder)).or_else(|| dict.iter().next().map(|(_, w)| w));
    chosen.into_iter().collect()
}
