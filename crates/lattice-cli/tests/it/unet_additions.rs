//! What is added to a U-Net beside adapters: texts in boxes, hypernetworks; and checkpoints with a configuration.

use std::collections::BTreeMap;
use std::path::Path;

use indexmap::IndexMap;
use lattice_weights::{StateDict, Weight, safetensors};
use serde_json::{Value as Json, json};

use crate::common::{difference, lattice, make, picture};
use crate::families::{checkpoint, slots, text_to_image};

fn sd15(base: &Path) -> Json {
    make(base, "sd15", "checkpoints");
    text_to_image(checkpoint("sd15"), slots("m"))
}

fn pixels_of(base: &Path, prompt: &Json) -> Vec<u8> {
    picture(base, prompt).2
}

/// What the program says about a prompt that fails.
fn failure(base: &Path, prompt: &Json) -> String {
    std::fs::write(base.join("prompt.json"), prompt.to_string()).unwrap();
    let output = lattice(base, &["run", "prompt.json", "-q"]);
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr).replace(['│', '\n'], " ");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// GLIGEN layers for the tiny U-Net, which reads the tiny text encoder's pooled text.
fn gligen(base: &Path) {
    make(base, "gligen_sd14", "gligen");
    let path = base.join("models/gligen/gligen_sd14.safetensors");
    let mut dict = lattice_weights::open_any(&path).unwrap();
    let text = 64;
    for (name, rows) in [("linears.0.weight", 512), ("null_positive_feature", 1)] {
        let name = format!("position_net.{name}");
        let old = dict.get(&name).unwrap().to_f32();
        let width = old.len() / rows;
        // The texts come first; the published ones are 768 wide.
        let cut: Vec<f32> = old
            .chunks(width)
            .flat_map(|row| row[..text].iter().chain(&row[768.min(row.len())..]).copied())
            .collect();
        let shape = if rows == 1 { vec![text] } else { vec![rows, cut.len() / rows] };
        dict.insert(name, Weight::from_f32(cut, shape).unwrap());
    }
    safetensors::write(&path.with_file_name("boxes.safetensors"), &dict).unwrap();
}

fn boxed(prompt: &Json, file: &str, boxes: &[(&str, [u32; 4])]) -> Json {
    let mut prompt = prompt.clone();
    prompt["g"] = json!({"class_type": "GLIGENLoader", "inputs": {"gligen_name": file}});
    for (i, (text, [width, height, x, y])) in boxes.iter().enumerate() {
        let id = format!("b{i}");
        prompt[&id] = json!({"class_type": "GLIGENTextBoxApply", "inputs": {
            "conditioning_to": prompt["k"]["inputs"]["positive"], "clip": ["m", 1], "gligen_textbox_model": ["g", 0],
            "text": text, "width": width, "height": height, "x": x, "y": y}});
        prompt["k"]["inputs"]["positive"] = json!([id, 0]);
    }
    prompt
}

#[test]
fn texts_in_boxes() {
    let base = tempfile::tempdir().unwrap();
    let base = base.path();
    let plain = sd15(base);
    gligen(base);
    let of = |boxes: &[(&str, [u32; 4])]| pixels_of(base, &boxed(&plain, "boxes.safetensors", boxes));
    let without = pixels_of(base, &plain);
    let fox = of(&[("a fox", [32, 32, 0, 0])]);
    assert!(difference(&fox, &without) > 4, "a box changes nothing");
    assert!(difference(&fox, &of(&[("a house on a hill", [32, 32, 0, 0])])) > 0, "the text counts");
    assert!(difference(&fox, &of(&[("a fox", [32, 32, 32, 64])])) > 0, "the place counts");
    assert!(
        difference(&fox, &of(&[("a fox", [32, 32, 0, 0]), ("a dog", [16, 16, 40, 40])])) > 0,
        "boxes add up"
    );
    // The file as it is reads wider texts; and nobody has trained more than thirty boxes.
    let message = failure(base, &boxed(&plain, "gligen_sd14.safetensors", &[("a fox", [32, 32, 0, 0])]));
    assert!(message.contains("64 wide") && message.contains("768 wide"), "{message}");
    let many: Vec<_> = (0..31).map(|i| ("a fox", [8, 8, i, 0])).collect();
    let message = failure(base, &boxed(&plain, "boxes.safetensors", &many));
    assert!(message.contains("31 boxes"), "{message}");
    make(base, "vae_sd", "gligen");
    let message = failure(base, &boxed(&plain, "vae_sd.safetensors", &[("a fox", [8, 8, 0, 0])]));
    assert!(message.contains("no GLIGEN"), "{message}");
}

/// A hypernetwork whose two layers multiply by a number: 32 and 64 are widths of the tiny U-Net's attentions.
fn hypernetwork(base: &Path, name: &str, by: f32, activation: &str) {
    let mut tensors = IndexMap::new();
    for width in [32usize, 64] {
        let scaled = |by: f32| {
            let values = (0..width * width).map(|i| if i / width == i % width { by } else { 0.0 }).collect();
            Weight::from_f32(values, (width, width)).unwrap()
        };
        for part in 0..2 {
            for (layer, by) in [(0, by), (3, 1.0)] {
                let at = format!("{width}.{part}.linear.{layer}");
                tensors.insert(format!("{at}.weight"), scaled(by));
                tensors.insert(format!("{at}.bias"), Weight::from_f32(vec![0.0; width], width).unwrap());
            }
        }
    }
    let metadata = BTreeMap::from([("activation_func".to_owned(), activation.to_owned())]);
    let folder = base.join("models/hypernetworks");
    std::fs::create_dir_all(&folder).unwrap();
    let dict = StateDict::new(name, tensors, metadata);
    safetensors::write(&folder.join(format!("{name}.safetensors")), &dict).unwrap();
}

#[test]
fn hypernetworks_change_keys_and_values() {
    let base = tempfile::tempdir().unwrap();
    let base = base.path();
    let plain = sd15(base);
    hypernetwork(base, "double", 1.0, "linear");
    hypernetwork(base, "relu", 1.0, "relu");
    hypernetwork(base, "odd", 1.0, "mish");
    let with = |names: &[(&str, f64)]| {
        let mut prompt = plain.clone();
        for (i, (name, strength)) in names.iter().enumerate() {
            let id = format!("h{i}");
            prompt[&id] = json!({"class_type": "HypernetworkLoader", "inputs": {
                "model": prompt["k"]["inputs"]["model"], "hypernetwork_name": format!("{name}.safetensors"),
                "strength": strength}});
            prompt["k"]["inputs"]["model"] = json!([id, 0]);
        }
        prompt
    };
    let of = |names: &[(&str, f64)]| pixels_of(base, &with(names));
    let without = pixels_of(base, &plain);
    assert_eq!(of(&[("double", 0.0)]), without);
    let full = of(&[("double", 1.0)]);
    assert!(difference(&full, &without) > 1);
    assert!(difference(&of(&[("relu", 1.0)]), &full) > 0, "the activation counts");
    // (1 + 1) (1 - 1/2) = 1: the second takes away what the first added.
    assert!(difference(&of(&[("double", 1.0), ("double", -0.5)]), &without) <= 1);
    let message = failure(base, &with(&[("odd", 1.0)]));
    assert!(message.contains("activation mish"), "{message}");
}

#[test]
fn a_configuration_says_what_is_predicted_and_which_layer_is_read() {
    let base = tempfile::tempdir().unwrap();
    let base = base.path();
    let plain = sd15(base);
    let folder = base.join("models/configs");
    std::fs::create_dir_all(&folder).unwrap();
    let config = |name: &str, more: &str, text: &str| {
        let yaml = format!(
            "model:\n  params:\n    timesteps: 1000\n{more}    cond_stage_config:\n      target: x\n{text}"
        );
        std::fs::write(folder.join(name), yaml).unwrap();
    };
    config("plain.yaml", "", "");
    config("v.yaml", "    parameterization: \"v\"\n", "");
    config("skip.yaml", "", "      params:\n        layer: hidden\n        layer_idx: -2\n");
    let with = |name: &str| {
        let mut prompt = plain.clone();
        prompt["m"] = json!({"class_type": "CheckpointLoader", "inputs": {
            "config_name": name, "ckpt_name": "sd15.safetensors"}});
        prompt
    };
    let without = pixels_of(base, &plain);
    assert_eq!(pixels_of(base, &with("plain.yaml")), without);
    let mut skipped = plain.clone();
    skipped["l"] =
        json!({"class_type": "CLIPSetLastLayer", "inputs": {"clip": ["m", 1], "stop_at_clip_layer": -2}});
    for text in ["p", "n"] {
        skipped[text]["inputs"]["clip"] = json!(["l", 0]);
    }
    assert_eq!(pixels_of(base, &with("skip.yaml")), pixels_of(base, &skipped));
    let mut velocity = plain.clone();
    velocity["v"] = json!({"class_type": "ModelSamplingDiscrete", "inputs": {
        "model": ["m", 0], "sampling": "v_prediction", "zsnr": false}});
    velocity["k"]["inputs"]["model"] = json!(["v", 0]);
    let velocity = pixels_of(base, &velocity);
    assert_eq!(pixels_of(base, &with("v.yaml")), velocity);
    assert!(difference(&velocity, &without) > 1);
    std::fs::write(folder.join("broken.yaml"), "model: [").unwrap();
    let message = failure(base, &with("broken.yaml"));
    assert!(message.contains("broken.yaml"), "{message}");
    let mut typed = plain;
    typed["t"] = json!({"class_type": "ModelComputeDtype", "inputs": {"model": ["m", 0], "dtype": "bf16"}});
    typed["k"]["inputs"]["model"] = json!(["t", 0]);
    assert_eq!(pixels_of(base, &typed), without);
}
