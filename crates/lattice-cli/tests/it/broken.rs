//! Broken and foreign files: each is an error that names the file, and where there is one the tensor; nothing crashes.

use std::collections::BTreeMap;
use std::path::Path;

use lattice_goldens::synthetic::Manifest;
use lattice_models::Checkpoint;
use lattice_models::detect::{TextPart, VaePart};
use lattice_weights::convert::{Output, convert};
use lattice_weights::{StateDict, StoredDType, Weight, open_any, safetensors};
use serde_json::json;

use crate::common::{lattice, make};
use crate::families::{checkpoint, slots, text_to_image};

/// What reads a file after it is opened.
fn load(kind: &str, dict: &StateDict) -> Result<(), String> {
    match kind {
        "vae" => VaePart::load(dict).map(drop).map_err(|e| e.to_string()),
        "text" => TextPart::load(dict).map(drop).map_err(|e| e.to_string()),
        _ => Checkpoint::load(dict).map(drop).map_err(|e| e.to_string()),
    }
}

fn error_of(path: &Path, kind: &str) -> String {
    match open_any(path) {
        Err(error) => error.to_string(),
        Ok(dict) => load(kind, &dict).expect_err(&format!("{} is accepted", path.display())),
    }
}

fn tiny(name: &str) -> StateDict {
    let manifest = Manifest::find(&Manifest::project_root(), &format!("tiny/{name}")).unwrap();
    manifest.state_dict(0, StoredDType::F16).unwrap()
}

/// A small file of each format that is written here.
fn whole_files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let vae = tiny("vae_sd");
    let paths = [("whole.safetensors", Output::Safetensors), ("whole.gguf", Output::Gguf)];
    let mut files = Vec::new();
    for (name, output) in paths {
        let path = folder.join(name);
        convert(&vae, &path, output, None, BTreeMap::new(), |_| ()).unwrap();
        files.push((name.to_owned(), std::fs::read(&path).unwrap()));
    }
    files
}

#[test]
fn files_cut_at_any_place_are_errors_that_name_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for (name, bytes) in whole_files(folder.path()) {
        for part in 0..20 {
            // Ends in the first bytes, in the header, and all over the data.
            let first = [0, 1, 7, 8, 9, 40, 300].get(part).copied();
            let length = first.unwrap_or_else(|| bytes.len() * part / 20 - 1);
            let path = folder.path().join(format!("cut{part}-{name}"));
            std::fs::write(&path, &bytes[..length]).unwrap();
            let error = error_of(&path, "vae");
            assert!(error.contains(&format!("cut{part}-{name}")), "{length} bytes: {error}");
            seen += 1;
        }
    }
    assert_eq!(seen, 40);
}

#[test]
fn missing_and_misshapen_tensors_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let scalar = Weight::new(StoredDType::F16, (), vec![0, 0].into(), None).unwrap();
    let mut seen = 0;
    for (model, kind, tensor) in [
        ("sd15", "checkpoint", "model.diffusion_model.time_embed.0.weight"),
        ("sd15", "checkpoint", "model.diffusion_model.middle_block.1.proj_in.weight"),
        ("sd15", "checkpoint", "model.diffusion_model.output_blocks.3.0.in_layers.2.weight"),
        ("sd15", "checkpoint", "model.diffusion_model.out.2.bias"),
        ("sd15", "checkpoint", "cond_stage_model.transformer.text_model.final_layer_norm.weight"),
        ("sd15", "checkpoint", "first_stage_model.decoder.conv_out.weight"),
        ("sdxl", "checkpoint", "model.diffusion_model.label_emb.0.2.bias"),
        ("sdxl", "checkpoint", "conditioner.embedders.1.model.ln_final.weight"),
        ("sd3_medium", "checkpoint", "model.diffusion_model.x_embedder.proj.weight"),
        ("sd3_medium", "checkpoint", "model.diffusion_model.final_layer.linear.weight"),
        ("flux_dev", "checkpoint", "txt_in.weight"),
        ("flux_dev", "checkpoint", "single_blocks.1.linear2.weight"),
        ("vae_flux", "vae", "decoder.mid.attn_1.q.weight"),
        ("te_clip_l", "text", "text_model.encoder.layers.1.mlp.fc1.weight"),
        ("te_t5xxl", "text", "encoder.block.1.layer.1.DenseReluDense.wo.weight"),
    ] {
        let whole = tiny(model);
        for change in ["missing", "scalar"] {
            let mut dict = whole.clone();
            assert!(dict.remove(tensor).is_some(), "{model} has no {tensor}");
            if change == "scalar" {
                dict.insert(tensor, scalar.clone());
            }
            let path = folder.path().join(format!("{change}-{tensor}-odd.safetensors"));
            safetensors::write(&path, &dict).unwrap();
            let error = error_of(&path, kind);
            std::fs::remove_file(&path).unwrap();
            // A tower is renamed before it is built, so only the end of its tensor's name is the file's.
            let last: Vec<&str> = tensor.rsplit('.').take(2).collect();
            let (file, cause) = error.split_once("odd.safetensors").unwrap_or(("", &error));
            assert!(!file.is_empty() && cause.contains(last[0]), "{change} {tensor}: {error}");
            seen += 1;
        }
    }
    assert_eq!(seen, 30);
}

#[test]
fn files_of_another_kind_say_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    for (model, words) in [
        ("lora_sd15_kohya", "LoRA"),
        ("lyco_sd15_loha", "LoRA"),
        ("vae_sd", "VAE"),
        ("te_clip_l", "text encoder"),
        ("te_t5xxl", "text encoder"),
        ("cn_sd15_diffusers", "ControlNet"),
        ("wan21_t2v", "Wan 2.1"),
        ("mochi_preview", "Mochi"),
    ] {
        let path = folder.path().join(format!("{model}.safetensors"));
        safetensors::write(&path, &tiny(model)).unwrap();
        let error = error_of(&path, "checkpoint");
        assert!(error.contains(&format!("{model}.safetensors")) && error.contains(words), "{model}: {error}");
    }
    // Of a network of no family the nearest is named, with what is missing.
    let path = folder.path().join("unknown.safetensors");
    let mut dict = tiny("flux_dev");
    dict.remove("img_in.weight");
    safetensors::write(&path, &dict).unwrap();
    let error = error_of(&path, "checkpoint");
    assert!(error.contains("nearest is Flux") && error.contains("`img_in.weight` is missing"), "{error}");
}

#[test]
fn weights_that_are_no_numbers_are_named_when_they_show() {
    for tensor in [
        "model.diffusion_model.middle_block.0.in_layers.2.weight",
        "cond_stage_model.transformer.text_model.encoder.layers.1.mlp.fc1.weight",
        "first_stage_model.decoder.conv_in.weight",
    ] {
        let base = tempfile::tempdir().unwrap();
        let base = base.path();
        let mut dict = tiny("sd15");
        let weight = dict.get(tensor).unwrap();
        let mut bytes = weight.bytes().to_vec();
        bytes[..2].copy_from_slice(&[0xff, 0x7f]);
        let broken = Weight::new(weight.dtype(), weight.shape().clone(), bytes.into(), None).unwrap();
        dict.insert(tensor, broken);
        std::fs::create_dir_all(base.join("models/checkpoints")).unwrap();
        safetensors::write(&base.join("models/checkpoints/nan.safetensors"), &dict).unwrap();
        let prompt = text_to_image(checkpoint("nan"), slots("m"));
        std::fs::write(base.join("p.json"), prompt.to_string()).unwrap();
        let output = lattice(base, &["run", "p.json", "-q"]);
        let error = String::from_utf8_lossy(&output.stderr);
        let name = tensor.split_once('.').unwrap().1.rsplit("transformer.").next().unwrap();
        let name = name.trim_start_matches("diffusion_model.");
        assert!(!output.status.success() && error.contains("nan.safetensors"), "{tensor}: {error}");
        assert!(error.contains(&format!("`{name}` holds values that are not finite")), "{tensor}: {error}");
    }
}

#[test]
fn errors_do_not_tell_where_in_the_program_they_arose() {
    let base = tempfile::tempdir().unwrap();
    let prompt = serde_json::json!({
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
        "2": {"class_type": "ImageBlur", "inputs": {"image": ["1", 0], "blur_radius": 31, "sigma": 1.0}},
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
    });
    std::fs::write(base.path().join("p.json"), prompt.to_string()).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_lattice"))
        .current_dir(base.path())
        .env("RUST_BACKTRACE", "1")
        .args(["run", "p.json"])
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("too small for a kernel"), "{error}");
    assert!(!error.contains("  0: ") && !error.contains(".rs"), "{error}");
}

#[test]
fn an_adapter_of_another_family_is_a_warning_with_counts() {
    let base = tempfile::tempdir().unwrap();
    let base = base.path();
    make(base, "sd15", "checkpoints");
    make(base, "lora_flux_kohya", "loras");
    let mut prompt = text_to_image(checkpoint("sd15"), [json!(["l", 0]), json!(["m", 1]), json!(["m", 2])]);
    prompt["l"] = json!({"class_type": "LoraLoaderModelOnly", "inputs": {
        "model": ["m", 0], "lora_name": "lora_flux_kohya.safetensors", "strength_model": 1.0}});
    std::fs::write(base.join("p.json"), prompt.to_string()).unwrap();
    let output = lattice(base, &["run", "p.json", "-q"]);
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    assert_eq!(log.matches("fits this model; it was made for another family").count(), 1, "{log}");
}
