//! Running the built program and reading what it made.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

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
