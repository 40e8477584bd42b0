//! Every family on its tiny model: text to image, image to image, inpainting, adapters, tiles, other file formats.

use std::path::Path;

use serde_json::{Value as Json, json};

use crate::common::{lattice, make, picture, project};

/// Nodes that load a checkpoint: model, text encoders and VAE are slots 0, 1, 2 of node `m`.
pub(crate) fn checkpoint(name: &str) -> Json {
    json!({"m": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": format!("{name}.safetensors")}}})
}

/// A two-step text-to-image prompt on top of loader nodes; `model`, `clip` and `vae` say where their results are.
pub(crate) fn text_to_image(mut loaders: Json, [model, clip, vae]: [Json; 3]) -> Json {
    let rest = json!({
        "p": {"class_type": "CLIPTextEncode", "inputs": {"text": "a (red:1.2) fox", "clip": clip}},
        "n": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry", "clip": clip}},
        "e": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 96, "batch_size": 1}},
        "k": {"class_type": "KSampler", "inputs": {
            "model": model, "seed": 3, "steps": 2, "cfg": 4.0, "sampler_name": "euler", "scheduler": "simple",
            "positive": ["p", 0], "negative": ["n", 0], "latent_image": ["e", 0], "denoise": 1.0}},
        "d": {"class_type": "VAEDecode", "inputs": {"samples": ["k", 0], "vae": vae}},
        "s": {"class_type": "SaveImage", "inputs": {"filename_prefix": "p", "images": ["d", 0]}},
    });
    let nodes = loaders.as_object_mut().unwrap();
    nodes.extend(rest.as_object().unwrap().clone());
    loaders
}

pub(crate) fn slots(node: &str) -> [Json; 3] {
    [json!([node, 0]), json!([node, 1]), json!([node, 2])]
}

/// Text to image, image to image and inpainting with one loader.
pub(crate) fn three_ways(base: &Path, loaders: &Json, at: [Json; 3]) {
    let text = text_to_image(loaders.clone(), at.clone());
    let (width, height, first) = picture(base, &text);
    assert_eq!((width, height), (64, 96));
    assert!(first.iter().any(|&v| v != first[0]), "the picture is blank");
    assert_eq!(picture(base, &text).2, first, "the same prompt gives the same picture");

    std::fs::create_dir_all(base.join("input")).unwrap();
    std::fs::copy(project("testdata/demo/init_apple_mask.png"), base.join("input/apple.png")).unwrap();
    let mut from_image = text.clone();
    from_image["i"] = json!({"class_type": "LoadImage", "inputs": {"image": "apple.png"}});
    from_image["e"] = json!({"class_type": "VAEEncode", "inputs": {"pixels": ["i", 0], "vae": at[2]}});
    from_image["k"]["inputs"]["denoise"] = json!(0.5);
    let (width, height, second) = picture(base, &from_image);
    assert_eq!((width, height), (128, 128));

    let mut painted = from_image.clone();
    painted["w"] =
        json!({"class_type": "SetLatentNoiseMask", "inputs": {"samples": ["e", 0], "mask": ["i", 1]}});
    painted["k"]["inputs"]["latent_image"] = json!(["w", 0]);
    assert_ne!(picture(base, &painted).2, second, "the mask changes the picture");
}

fn checkpoint_family(name: &str) {
    let base = tempfile::tempdir().unwrap();
    make(base.path(), name, "checkpoints");
    three_ways(base.path(), &checkpoint(name), slots("m"));
}

#[test]
fn stable_diffusion_1() {
    checkpoint_family("sd15");
}

#[test]
fn stable_diffusion_1_inpaint() {
    checkpoint_family("sd15_inpaint");
}

#[test]
fn stable_diffusion_2() {
    checkpoint_family("sd21");
}

#[test]
fn sdxl() {
    checkpoint_family("sdxl");
}

#[test]
fn sdxl_refiner() {
    checkpoint_family("sdxl_refiner");
}

/// Flux in parts: the model, text encoders and VAE are slot 0 of `u`, `c` and `v`.
pub(crate) fn flux_schnell(base: &Path) -> Json {
    flux(base, "flux_schnell")
}

pub(crate) fn flux(base: &Path, network: &str) -> Json {
    make(base, network, "diffusion_models");
    make(base, "te_clip_l", "text_encoders");
    make(base, "te_t5xxl", "text_encoders");
    make(base, "vae_flux", "vae");
    json!({
        "u": {"class_type": "UNETLoader", "inputs": {"unet_name": format!("{network}.safetensors"), "weight_dtype": "default"}},
        "c": {"class_type": "DualCLIPLoader", "inputs": {
            "clip_name1": "te_t5xxl.safetensors", "clip_name2": "te_clip_l.safetensors", "type": "flux"}},
        "v": {"class_type": "VAELoader", "inputs": {"vae_name": "vae_flux.safetensors"}},
    })
}

#[test]
fn flux_from_parts() {
    for network in ["flux_schnell", "flux_dev"] {
        let base = tempfile::tempdir().unwrap();
        let loaders = flux(base.path(), network);
        three_ways(base.path(), &loaders, [json!(["u", 0]), json!(["c", 0]), json!(["v", 0])]);
    }
}

#[test]
fn adapters_and_tiles() {
    let base = tempfile::tempdir().unwrap();
    make(base.path(), "sd15", "checkpoints");
    make(base.path(), "lora_sd15_kohya", "loras");
    let plain = text_to_image(checkpoint("sd15"), slots("m"));
    let without = picture(base.path(), &plain).2;

    let with_lora = |model: f64, clip: f64| {
        let mut prompt =
            text_to_image(checkpoint("sd15"), [json!(["l", 0]), json!(["l", 1]), json!(["m", 2])]);
        prompt["l"] = json!({"class_type": "LoraLoader", "inputs": {
            "model": ["m", 0], "clip": ["m", 1], "lora_name": "lora_sd15_kohya.safetensors",
            "strength_model": model, "strength_clip": clip}});
        picture(base.path(), &prompt).2
    };
    assert_eq!(with_lora(0.0, 0.0), without);
    let (network, text) = (with_lora(0.8, 0.0), with_lora(0.0, 0.8));
    assert!(network != without && text != without && network != text);

    let mut tiled = plain.clone();
    tiled["d"] = json!({"class_type": "VAEDecodeTiled", "inputs": {"samples": ["k", 0], "vae": ["m", 2],
        "tile_size": 4096, "overlap": 64, "temporal_size": 64, "temporal_overlap": 8}});
    let tiled = picture(base.path(), &tiled).2;
    let off = tiled.iter().zip(&without).filter(|(a, b)| a.abs_diff(**b) > 1).count();
    assert_eq!(off, 0, "a tile that holds the whole picture changes nothing");
}

#[test]
fn inspect_says_what_a_file_is() {
    let base = tempfile::tempdir().unwrap();
    make(base.path(), "sdxl", "checkpoints");
    make(base.path(), "lora_sd15_kohya", "loras");
    make(base.path(), "vae_flux", "vae");
    let text = |file: &str| {
        let output = lattice(base.path(), &["inspect", file, "--tensors"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let sdxl = text("models/checkpoints/sdxl.safetensors");
    assert!(sdxl.contains("diffusion model: SDXL, stored as F16"), "{sdxl}");
    assert!(sdxl.contains("text encoder: clip_g") && sdxl.contains("input_blocks.0.0.weight"), "{sdxl}");
    assert!(text("models/loras/lora_sd15_kohya.safetensors").contains("adapter (LoRA or its kin)"));
    assert!(text("models/vae/vae_flux.safetensors").contains("VAE: 16 latent channels"));
    std::fs::write(base.path().join("text.safetensors"), "hello, this is no model").unwrap();
    let refused = lattice(base.path(), &["inspect", "text.safetensors"]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("text.safetensors"));
}
