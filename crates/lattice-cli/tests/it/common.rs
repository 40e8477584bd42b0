//! Running the built program and reading what it made.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use lattice_goldens::synthetic::Manifest;
use lattice_weights::StoredDType;
use serde_json::Value as Json;

pub(crate) fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

pub(crate) fn lattice(base: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lattice"))
        .current_dir(base)
        .args(args)
        .output()
        .expect("the program starts")
}

pub(crate) fn pixels(file: &Path) -> (usize, usize, Vec<u8>) {
    let bytes = std::fs::read(file).unwrap();
    let decoded = lattice_media::decode::decode(&bytes, lattice_media::Limits::default()).unwrap();
    let image = decoded.image().unwrap();
    let (_, height, width, _) = image.dims4().unwrap();
    let values = image.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    (width, height, values.iter().map(|v| (v * 255.0).round() as u8).collect())
}

/// Writes a tiny model (`tiny/NAME`) below `models/`.
pub(crate) fn make(base: &Path, name: &str, kind: &str) {
    write_model(base, &format!("tiny/{name}"), name, kind, 0);
}

/// The same with weights of another seed.
pub(crate) fn make_seeded(base: &Path, name: &str, kind: &str, seed: u64) {
    write_model(base, &format!("tiny/{name}"), name, kind, seed);
}

/// Writes a model of a manifest below `models/`, with weights of a seed.
pub(crate) fn write_model(base: &Path, manifest: &str, name: &str, kind: &str, seed: u64) {
    let folder = base.join("models").join(kind);
    std::fs::create_dir_all(&folder).unwrap();
    let manifest = Manifest::find(&Manifest::project_root(), manifest).unwrap();
    manifest.write(&folder.join(format!("{name}.safetensors")), seed, StoredDType::F16).unwrap();
}

/// Runs a prompt and returns the picture.
pub(crate) fn picture(base: &Path, prompt: &Json) -> (usize, usize, Vec<u8>) {
    std::fs::write(base.join("prompt.json"), prompt.to_string()).unwrap();
    let output = lattice(base, &["run", "prompt.json", "-q"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    pixels(&base.join(String::from_utf8(output.stdout).unwrap().trim()))
}

/// The largest difference of two pictures. Calls that are made one by one instead of together may round differently.
pub(crate) fn difference(a: &[u8], b: &[u8]) -> u8 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0)
}
