//! `lattice convert`, and pictures of converted models.

use lattice_weights::{BlockType, StoredDType, open_any};

use crate::common::{lattice, make, picture};
use crate::families::{checkpoint, slots, text_to_image};

#[test]
fn converted_models_make_the_same_picture() {
    let base = tempfile::tempdir().unwrap();
    let base = base.path();
    make(base, "sd15", "checkpoints");
    let folder = base.join("models/checkpoints");
    let convert = |from: &str, to: &str, dtype: Option<&str>| {
        let (from, to) = (folder.join(from), folder.join(to));
        let mut args = vec!["convert", from.to_str().unwrap(), to.to_str().unwrap()];
        args.extend(dtype.iter().flat_map(|dtype| ["--dtype", dtype]));
        let output = lattice(base, &args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let image = |file: &str| {
        let mut prompt = text_to_image(checkpoint("sd15"), slots("m"));
        prompt["m"]["inputs"]["ckpt_name"] = file.into();
        picture(base, &prompt).2
    };
    let original = image("sd15.safetensors");
    convert("sd15.safetensors", "half.gguf", None);
    assert_eq!(image("half.gguf"), original);
    convert("half.gguf", "single.safetensors", Some("f32"));
    assert_eq!(image("single.safetensors"), original);

    convert("sd15.safetensors", "q8.gguf", Some("q8_0"));
    let quantized = open_any(&folder.join("q8.gguf")).unwrap();
    let blocks = |w: &lattice_weights::Weight| w.dtype() == StoredDType::Block(BlockType::Q8_0);
    assert!(quantized.iter().any(|(_, w)| blocks(w)));
    assert_eq!(quantized.metadata()["general.architecture"], "sd1");
    let near = image("q8.gguf");
    let off = near.iter().zip(&original).map(|(a, b)| u64::from(a.abs_diff(*b))).sum::<u64>();
    assert!(near != original && off < 4 * original.len() as u64, "off by {off} in {} values", original.len());
}

#[test]
fn what_cannot_be_made_is_refused() {
    let base = tempfile::tempdir().unwrap();
    let base = base.path();
    make(base, "vae_sd", "vae");
    let error = |args: &[&str]| {
        let output = lattice(base, &[&["convert", "models/vae/vae_sd.safetensors"], args].concat());
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(error(&["x.ckpt"]).contains("only .safetensors and .gguf"));
    assert!(error(&["x.safetensors", "--dtype", "q4_0"]).contains(".gguf files only"));
    assert!(error(&["x.gguf", "--dtype", "f8_e4m3"]).contains(".safetensors files only"));
    assert!(error(&["x.gguf", "--dtype", "int7"]).contains("known types are f32"));
    assert!(error(&["models/vae/vae_sd.safetensors"]).contains("--force"));
    assert!(!base.join("x.gguf").exists());
}
