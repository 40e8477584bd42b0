//! Where files lie: model folders with their search paths, input, output, temporary and user files.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use indexmap::IndexMap;
use walkdir::WalkDir;

use super::Ledger;
use super::counters::Counters;
use crate::{Error, Result};

/// Which entries of a model folder are models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accept {
    Weights,
    Yaml,
    /// Folders in the diffusers layout.
    DiffusersFolders,
    WithoutExtension,
    Any,
}

/// File endings of model weights. GGUF is ours; the others are the reference's.
const WEIGHT_EXTENSIONS: [&str; 9] = ["ckpt", "pt", "pt2", "bin", "pth", "safetensors", "pkl", "sft", "gguf"];

/// The file that makes a folder a diffusers model.
const DIFFUSERS_INDEX: &str = "model_index.json";

/// Kinds of model folders in the order clients list them, and the sub-folders of `models` they are searched in.
const KINDS: [(&str, &[&str], Accept); 20] = [
    ("checkpoints", &["checkpoints"], Accept::Weights),
    ("configs", &["configs"], Accept::Yaml),
    ("loras", &["loras"], Accept::Weights),
    ("vae", &["vae"], Accept::Weights),
    ("text_encoders", &["text_encoders", "clip"], Accept::Weights),
    ("diffusion_models", &["unet", "diffusion_models"], Accept::Weights),
    ("clip_vision", &["clip_vision"], Accept::Weights),
    ("style_models", &["style_models"], Accept::Weights),
    ("embeddings", &["embeddings"], Accept::Weights),
    ("diffusers", &["diffusers"], Accept::DiffusersFolders),
    ("vae_approx", &["vae_approx"], Accept::Weights),
    ("controlnet", &["controlnet", "t2i_adapter"], Accept::Weights),
    ("gligen", &["gligen"], Accept::Weights),
    ("upscale_models", &["upscale_models"], Accept::Weights),
    ("custom_nodes", &[], Accept::Any),
    ("hypernetworks", &["hypernetworks"], Accept::Weights),
    ("photomaker", &["photomaker"], Accept::Weights),
    ("classifiers", &["classifiers"], Accept::WithoutExtension),
    ("model_patches", &["model_patches"], Accept::Weights),
    ("audio_encoders", &["audio_encoders"], Accept::Weights),
];

/// Kinds whose files may also be made by nodes, and the folder below the output folder where those land.
const MADE_BY_NODES: [(&str, &str); 5] = [
    ("checkpoints", "checkpoints"),
    ("text_encoders", "clip"),
    ("vae", "vae"),
    ("diffusion_models", "diffusion_models"),
    ("loras", "loras"),
];

/// One of the folders that prompts and clients name files in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// Files given by users.
    Input,
    /// Results to keep.
    Output,
    /// Previews; emptied at each start.
    Temp,
}

impl Root {
    /// `input`, `output`, `temp`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Output => "output",
            Self::Temp => "temp",
        }
    }

    /// The root of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Input, Self::Output, Self::Temp].into_iter().find(|root| root.name() == name)
    }
}

/// Where a model's bytes are.
#[derive(Clone, Debug)]
pub enum ModelFile {
    /// On disk (a file, or a diffusers folder).
    Path(PathBuf),
    /// Part of the program.
    Builtin {
        /// Its name in lists.
        name: String,
        /// The file's bytes.
        bytes: Bytes,
    },
}

/// Search paths of one kind of model.
#[derive(Clone, Debug)]
struct Kind {
    paths: Vec<PathBuf>,
    accept: Accept,
    builtin: IndexMap<String, Bytes>,
}

/// The folders that nodes read from and write to.
#[derive(Clone, Debug)]
pub struct Folders {
    models: IndexMap<String, Kind>,
    input: PathBuf,
    output: PathBuf,
    temp: PathBuf,
    user: PathBuf,
    ledger: Option<Arc<Ledger>>,
    counters: Arc<Counters>,
}

impl Folders {
    /// The usual layout below a base folder: `models/<kind>`, `input`, `output`, `temp`, `user`.
    pub fn new(base: impl AsRef<Path>) -> Self {
        let base = base.as_ref();
        let output = base.join("output");
        let models = KINDS.iter().map(|&(kind, below, accept)| {
            let mut paths: Vec<_> = below.iter().map(|folder| base.join("models").join(folder)).collect();
            if kind == "custom_nodes" {
                paths.push(base.join(kind));
            }
            (kind.to_owned(), Kind { paths, accept, builtin: IndexMap::new() })
        });
        let models = models.collect();
        let folders = Self {
            models,
            input: base.join("input"),
            temp: base.join("temp"),
            user: base.join("user"),
            output: PathBuf::new(),
            ledger: None,
            counters: Arc::default(),
        };
        folders.with_output(output)
    }

    /// With another input folder.
    #[must_use]
    pub fn with_input(mut self, path: impl Into<PathBuf>) -> Self {
        self.input = path.into();
        self
    }

    /// With another output folder. Models that nodes save there are found too.
    #[must_use]
    pub fn with_output(mut self, path: impl Into<PathBuf>) -> Self {
        let (path, old) = (path.into(), std::mem::take(&mut self.output));
        for (kind, below) in MADE_BY_NODES {
            if let Some(kind) = self.models.get_mut(kind) {
                let made = old.join(below);
                kind.paths.retain(|p| *p != made);
                kind.paths.push(path.join(below));
            }
        }
        self.output = path;
        self
    }

    /// With another folder for temporary files.
    #[must_use]
    pub fn with_temp(mut self, path: impl Into<PathBuf>) -> Self {
        self.temp = path.into();
        self
    }

    /// With another folder for the users' settings and workflows.
    #[must_use]
    pub fn with_user(mut self, path: impl Into<PathBuf>) -> Self {
        self.user = path.into();
        self
    }

    /// With a note of each file that goes into the output folder.
    #[must_use]
    pub fn with_ledger(mut self, ledger: Arc<Ledger>) -> Self {
        self.ledger = Some(ledger);
        self
    }

    /// The note of files of a root; only results are noted.
    pub(super) fn ledger(&self, root: Root) -> Option<Arc<Ledger>> {
        self.ledger.clone().filter(|_| root == Root::Output)
    }

    /// What is known of the numbers of saved files.
    pub(super) fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    /// Adds a search path to a kind of model, before all others if `first` (where new files of that kind go).
    /// An unknown kind is added as a folder of weights.
    pub fn add_search_path(&mut self, kind: &str, path: impl Into<PathBuf>, first: bool) {
        let path = path.into();
        let new = || Kind { paths: Vec::new(), accept: Accept::Weights, builtin: IndexMap::new() };
        let kind = self.models.entry(canonical_kind(kind).to_owned()).or_insert_with(new);
        kind.paths.retain(|p| *p != path);
        let place = if first { 0 } else { kind.paths.len() };
        kind.paths.insert(place, path);
    }

    /// Adds a model that is part of the program. A file of the same name on disk wins.
    pub fn add_builtin(&mut self, kind: &str, name: &str, bytes: impl Into<Bytes>) {
        if let Some(kind) = self.models.get_mut(canonical_kind(kind)) {
            kind.builtin.insert(name.to_owned(), bytes.into());
        }
    }

    /// Kinds of models.
    pub fn kinds(&self) -> impl Iterator<Item = &str> {
        self.models.keys().map(String::as_str)
    }

    /// Folders that models of a kind are searched in; None for an unknown kind.
    pub fn search_paths(&self, kind: &str) -> Option<&[PathBuf]> {
        self.models.get(canonical_kind(kind)).map(|kind| kind.paths.as_slice())
    }

    /// Names of the models of a kind, relative to their search path with `/` between folders, sorted.
    pub fn list(&self, kind: &str) -> Vec<String> {
        let Some(kind) = self.models.get(canonical_kind(kind)) else { return Vec::new() };
        let on_disk = kind.paths.iter().flat_map(|path| kind.accept.list(path));
        let all: BTreeSet<String> = on_disk.chain(kind.builtin.keys().cloned()).collect();
        all.into_iter().collect()
    }

    /// The model of that name.
    ///
    /// # Errors
    /// If there is none, or the name leaves the search paths.
    pub fn find(&self, kind: &str, name: &str) -> Result<ModelFile> {
        let canonical = canonical_kind(kind);
        let none = || Error::File {
            path: Path::new(kind).join(name),
            source: std::io::Error::new(std::io::ErrorKind::NotFound, "no such model"),
        };
        let kind = self.models.get(canonical).ok_or_else(none)?;
        let below = inside(name).ok_or_else(none)?;
        let found = kind.paths.iter().map(|path| path.join(&below)).find(|path| path.exists());
        let builtin = || {
            kind.builtin
                .get(name)
                .map(|bytes| ModelFile::Builtin { name: name.to_owned(), bytes: bytes.clone() })
        };
        found.map(ModelFile::Path).or_else(builtin).ok_or_else(none)
    }

    /// The folder of a root.
    pub fn root(&self, root: Root) -> &Path {
        match root {
            Root::Input => &self.input,
            Root::Output => &self.output,
            Root::Temp => &self.temp,
        }
    }

    /// The folder of the users' settings and workflows.
    pub fn user(&self) -> &Path {
        &self.user
    }

    /// The path of a file that a prompt names: `a.png`, `sub/a.png`, `a.png [output]`; without a mark it lies in
    /// `root`. The file need not exist.
    ///
    /// # Errors
    /// If the name leaves the folder.
    pub fn annotated(&self, name: &str, root: Root) -> Result<PathBuf> {
        let (name, root) = split_annotation(name).unwrap_or((name, root));
        let below = inside(name).ok_or_else(|| {
            Error::OutsideFolder(format!("`{name}` is not inside the {} folder", root.name()))
        })?;
        Ok(self.root(root).join(below))
    }

    /// Names of the folders below a root, with `/` between their parts, sorted.
    pub fn subfolders(&self, root: Root) -> Vec<String> {
        let root = self.root(root);
        let visible = |entry: &walkdir::DirEntry| {
            entry.depth() == 0 || !entry.file_name().to_string_lossy().starts_with('.')
        };
        let entries = WalkDir::new(root).min_depth(1).follow_links(true).into_iter().filter_entry(visible);
        let folders = entries.filter_map(std::result::Result::ok).filter(|e| e.file_type().is_dir());
        let mut names: Vec<String> = folders.filter_map(|e| relative_name(e.path(), root)).collect();
        names.sort_unstable();
        names
    }

    /// Names of the files directly in a root whose extension is among `extensions` (all files if that is empty),
    /// sorted.
    pub fn files(&self, root: Root, extensions: &[&str]) -> Vec<String> {
        let entries = std::fs::read_dir(self.root(root)).into_iter().flatten().flatten();
        let files = entries.filter(|e| e.path().is_file()).filter_map(|e| e.file_name().into_string().ok());
        let wanted = |name: &String| {
            extensions.is_empty() || extension(name).is_some_and(|e| extensions.contains(&e.as_str()))
        };
        let mut files: Vec<String> = files.filter(wanted).collect();
        files.sort_unstable();
        files
    }
}

impl Accept {
    /// Models below a folder. An absent folder has none.
    fn list(self, folder: &Path) -> Vec<String> {
        let visible = |entry: &walkdir::DirEntry| entry.depth() == 0 || entry.file_name() != ".git";
        let entries = WalkDir::new(folder).follow_links(true).into_iter().filter_entry(visible);
        // Entries that cannot be read (dangling links, link loops) are no models.
        let entries = entries.filter_map(std::result::Result::ok).filter(|entry| self.accepts(entry));
        entries.filter_map(|entry| relative_name(entry.path(), folder)).collect()
    }

    fn accepts(self, entry: &walkdir::DirEntry) -> bool {
        if self == Self::DiffusersFolders {
            return entry.depth() > 0
                && entry.file_type().is_dir()
                && entry.path().join(DIFFUSERS_INDEX).is_file();
        }
        let ending = entry.file_name().to_str().and_then(extension);
        entry.file_type().is_file()
            && match self {
                Self::Weights => ending.is_some_and(|e| WEIGHT_EXTENSIONS.contains(&e.as_str())),
                Self::Yaml => ending.is_some_and(|e| e == "yaml"),
                Self::WithoutExtension => ending.is_none(),
                Self::Any | Self::DiffusersFolders => true,
            }
    }
}

/// Older names of kinds, which settings files still use.
fn canonical_kind(kind: &str) -> &str {
    match kind {
        "unet" => "diffusion_models",
        "clip" => "text_encoders",
        other => other,
    }
}

/// Lower-cased extension, without the dot.
fn extension(name: &str) -> Option<String> {
    Path::new(name).extension()?.to_str().map(str::to_lowercase)
}

/// `path` below `folder`, with `/` between its parts.
fn relative_name(path: &Path, folder: &Path) -> Option<String> {
    let parts: Option<Vec<&str>> = path.strip_prefix(folder).ok()?.iter().map(|part| part.to_str()).collect();
    Some(parts?.join("/"))
}

/// Splits `name [root]`.
pub fn split_annotation(name: &str) -> Option<(&str, Root)> {
    let (file, mark) = name.strip_suffix(']')?.rsplit_once('[')?;
    Some((file.trim_end(), Root::from_name(mark)?))
}

/// A relative path made plain: no `.`, and `..` only where it stays inside. None where the path would leave its
/// folder, or names nothing in it.
pub fn inside(path: &str) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(part) => plain.push(part),
            Component::CurDir => {}
            Component::ParentDir => {
                if !plain.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    // A NUL byte would make the system refuse the path with a less clear message.
    (!plain.as_os_str().is_empty() && !path.contains('\0')).then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: PathBuf) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"x").unwrap();
    }

    #[test]
    fn lists_every_search_path_sorted() {
        let base = tempfile::tempdir().unwrap();
        let mut folders = Folders::new(base.path());
        for name in ["clip/b.safetensors", "text_encoders/sub/a.pt", "clip/.git/c.pt", "clip/read.me"] {
            write(base.path().join("models").join(name));
        }
        write(base.path().join("output/clip/made.safetensors"));
        write(base.path().join("elsewhere/Z.CKPT"));
        folders.add_search_path("clip", base.path().join("elsewhere"), false);
        folders.add_builtin("text_encoders", "inside.safetensors", Bytes::from_static(b"model"));
        let expected = ["Z.CKPT", "b.safetensors", "inside.safetensors", "made.safetensors", "sub/a.pt"];
        assert_eq!(folders.list("text_encoders"), expected);
        assert!(folders.list("no such kind").is_empty());
    }

    #[test]
    fn diffusers_models_are_folders() {
        let base = tempfile::tempdir().unwrap();
        write(base.path().join("models/diffusers/pony/model_index.json"));
        write(base.path().join("models/diffusers/pony/unet/config.json"));
        write(base.path().join("models/diffusers/other/config.json"));
        assert_eq!(Folders::new(base.path()).list("diffusers"), ["pony"]);
    }

    #[test]
    fn names_never_leave_their_folder() {
        let base = tempfile::tempdir().unwrap();
        write(base.path().join("secret.safetensors"));
        let folders = Folders::new(base.path());
        for name in ["../../secret.safetensors", "/etc/passwd", "..", "", "a/../../x", "a\0b"] {
            assert!(folders.find("checkpoints", name).is_err(), "{name:?}");
            assert!(folders.annotated(name, Root::Input).is_err(), "{name:?}");
        }
        let temp = folders.annotated("sub/./a b.png [temp]", Root::Input).unwrap();
        assert_eq!(temp, base.path().join("temp/sub/a b.png"));
        assert_eq!(
            folders.annotated("odd [name].png", Root::Output).unwrap(),
            base.path().join("output/odd [name].png")
        );
    }

    #[test]
    fn a_file_on_disk_wins_over_a_builtin_one() {
        let base = tempfile::tempdir().unwrap();
        let mut folders = Folders::new(base.path());
        folders.add_builtin("checkpoints", "demo.safetensors", Bytes::from_static(b"model"));
        assert!(matches!(
            folders.find("checkpoints", "demo.safetensors").unwrap(),
            ModelFile::Builtin { .. }
        ));
        write(base.path().join("models/checkpoints/demo.safetensors"));
        assert!(matches!(folders.find("checkpoints", "demo.safetensors").unwrap(), ModelFile::Path(_)));
    }
}
