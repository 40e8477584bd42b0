//! Formats are told by content, and diffusers folders are read whole.

use std::collections::BTreeMap;
use std::path::Path;

use indexmap::IndexMap;
use lattice_weights::{StateDict, Weight, open_any, safetensors};

fn write(path: &Path, names: &[&str]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let tensors: IndexMap<String, Weight> =
        names.iter().map(|n| ((*n).to_owned(), Weight::from_f32(vec![1.0], 1).unwrap())).collect();
    safetensors::write(path, &StateDict::new("x", tensors, BTreeMap::new())).unwrap();
}

fn names(dict: &StateDict) -> Vec<&str> {
    let mut out: Vec<&str> = dict.iter().map(|(n, _)| n).collect();
    out.sort_unstable();
    out
}

#[test]
fn the_name_does_not_decide() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("really-safetensors.ckpt");
    write(&path, &["a"]);
    assert_eq!(names(&open_any(&path).unwrap()), ["a"]);
}

#[test]
fn what_is_no_model_is_said_so() {
    let folder = tempfile::tempdir().unwrap();
    for (content, wanted) in [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS"),
        ("<!DOCTYPE html><html>", "web page"),
        ("hello, this is a text file", "no known model file format"),
        ("", "empty"),
    ] {
        let path = folder.path().join("x.ckpt");
        std::fs::write(&path, content).unwrap();
        let message = open_any(&path).unwrap_err().to_string();
        assert!(message.contains(wanted) && message.contains("x.ckpt"), "{message}");
    }
    // Under this name the damage is explained.
    let path = folder.path().join("x.safetensors");
    std::fs::write(&path, [9, 0, 0, 0, 0, 0, 0]).unwrap();
    assert!(open_any(&path).unwrap_err().to_string().contains("header length"));
}

#[test]
fn folders_of_components_and_shards() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write(&root.join("unet/diffusion_pytorch_model.safetensors"), &["conv_in.weight"]);
    write(&root.join("vae/diffusion_pytorch_model.fp16.safetensors"), &["encoder.weight"]);
    write(&root.join("text_encoder/model-00001-of-00002.safetensors"), &["a", "b"]);
    write(&root.join("text_encoder/model-00002-of-00002.safetensors"), &["c"]);
    let index = root.join("text_encoder/model.safetensors.index.json");
    let map = |c: &str| {
        format!(
            r#"{{"weight_map": {{"a": "model-00001-of-00002.safetensors", "b": "model-00001-of-00002.safetensors", "c": "{c}"}}}}"#
        )
    };
    std::fs::write(&index, map("model-00002-of-00002.safetensors")).unwrap();
    let dict = open_any(root).unwrap();
    let wanted =
        ["text_encoder.a", "text_encoder.b", "text_encoder.c", "unet.conv_in.weight", "vae.encoder.weight"];
    assert_eq!(names(&dict), wanted);
    assert_eq!(names(&open_any(&root.join("unet")).unwrap()), ["conv_in.weight"]);

    for (file, wanted) in [
        ("model-00001-of-00002.safetensors", "`c`"),
        ("model-00003-of-00003.safetensors", "model-00003"),
        ("../unet/diffusion_pytorch_model.safetensors", "no plain file name"),
        ("..", "no plain file name"),
    ] {
        std::fs::write(&index, map(file)).unwrap();
        let message = open_any(root).unwrap_err().to_string();
        assert!(message.contains(wanted), "{message}");
    }
    let empty = tempfile::tempdir().unwrap();
    assert!(open_any(empty.path()).unwrap_err().to_string().contains("component folders"));
}
