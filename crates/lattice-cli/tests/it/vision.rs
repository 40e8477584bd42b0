//! Pictures as prompts, and pictures made larger.

use serde_json::{Value as Json, json};

use crate::common::{difference, lattice, make, picture, project};
use crate::families::{checkpoint, flux_schnell, slots, text_to_image};

/// The prompt with what a style model makes of a picture behind the positive one.
fn styled(prompt: &Json, tower: &str, style: &str, strength: f64, kind: &str) -> Json {
    let mut prompt = prompt.clone();
    let more = json!({
        "i": {"class_type": "LoadImage", "inputs": {"image": "hint.png"}},
        "cv": {"class_type": "CLIPVisionLoader", "inputs": {"clip_name": format!("{tower}.safetensors")}},
        "ce": {"class_type": "CLIPVisionEncode", "inputs": {
            "clip_vision": ["cv", 0], "image": ["i", 0], "crop": "center"}},
        "sl": {"class_type": "StyleModelLoader", "inputs": {"style_model_name": format!("{style}.safetensors")}},
        "sa": {"class_type": "StyleModelApply", "inputs": {
            "conditioning": ["p", 0], "style_model": ["sl", 0], "clip_vision_output": ["ce", 0],
            "strength": strength, "strength_type": kind}},
    });
    prompt.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    prompt["k"]["inputs"]["positive"] = json!(["sa", 0]);
    prompt
}

fn with_hint() -> tempfile::TempDir {
    let base = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(base.path().join("input")).unwrap();
    std::fs::copy(project("testdata/demo/init_apple_mask.png"), base.path().join("input/hint.png")).unwrap();
    base
}

#[test]
fn a_style_changes_the_picture_by_its_strength() {
    let base = with_hint();
    let base = base.path();
    make(base, "sd15", "checkpoints");
    make(base, "clip_vision_vit_l", "clip_vision");
    make(base, "style_t2i", "style_models");
    let plain = text_to_image(checkpoint("sd15"), slots("m"));
    let of = |strength, kind: &str| {
        picture(base, &styled(&plain, "clip_vision_vit_l", "style_t2i", strength, kind)).2
    };
    let full = of(1.0, "multiply");
    assert!(difference(&full, &picture(base, &plain).2) > 1);
    assert!(difference(&full, &of(0.2, "multiply")) > 1);
    assert_eq!(full, of(1.0, "attn_bias"), "strength 1 is no weight");
}

#[test]
fn redux_reads_pictures_for_flux() {
    let base = with_hint();
    let base = base.path();
    let loaders = flux_schnell(base);
    make(base, "siglip_so400m_384", "clip_vision");
    make(base, "style_flux_redux", "style_models");
    let plain = text_to_image(loaders, [json!(["u", 0]), json!(["c", 0]), json!(["v", 0])]);
    let of = |strength| {
        picture(base, &styled(&plain, "siglip_so400m_384", "style_flux_redux", strength, "multiply")).2
    };
    assert!(difference(&of(1.0), &picture(base, &plain).2) > 1);
    assert!(difference(&of(1.0), &of(0.3)) > 1);
}

#[test]
fn pictures_are_enlarged_in_parts() {
    let base = with_hint();
    let base = base.path();
    for (network, scale) in
        [("realesrgan_x2plus", 2), ("esrgan_old_x4", 4), ("realesrgan_x4plus", 4), ("realesr_compact_x4", 4)]
    {
        make(base, network, "upscale_models");
        let mut prompt = json!({
            "i": {"class_type": "LoadImage", "inputs": {"image": "hint.png"}},
            "x": {"class_type": "ImageScale", "inputs": {"image": ["i", 0], "upscale_method": "bilinear",
                "width": 40, "height": 24, "crop": "disabled"}},
            "u": {"class_type": "UpscaleModelLoader", "inputs": {"model_name": format!("{network}.safetensors")}},
            "e": {"class_type": "ImageUpscaleWithModel", "inputs": {"upscale_model": ["u", 0], "image": ["x", 0]}},
            "s": {"class_type": "SaveImage", "inputs": {"filename_prefix": "p", "images": ["e", 0]}},
        });
        let (width, height, pixels) = picture(base, &prompt);
        assert_eq!((width, height), (40 * scale, 24 * scale), "{network}");
        assert!(pixels.iter().any(|v| *v != pixels[0]), "{network}: blank");
        // Larger than one part: two of 512 pixels that share 32.
        if network == "realesr_compact_x4" {
            prompt["x"]["inputs"]["width"] = json!(600);
            let (width, height, pixels) = picture(base, &prompt);
            assert_eq!((width, height), (2400, 96));
            assert!(pixels.iter().any(|v| *v != pixels[0]));
        }
    }
}

#[test]
fn files_that_are_no_tower_style_or_upscaler_are_refused() {
    let base = with_hint();
    let base = base.path();
    for kind in ["clip_vision", "style_models", "upscale_models"] {
        make(base, "vae_sd", kind);
    }
    for (class, input) in [
        ("CLIPVisionLoader", "clip_name"),
        ("StyleModelLoader", "style_model_name"),
        ("UpscaleModelLoader", "model_name"),
    ] {
        let prompt = json!({
            "l": {"class_type": class, "inputs": {input: "vae_sd.safetensors"}},
            "s": {"class_type": "PreviewAny", "inputs": {"source": ["l", 0]}},
        });
        std::fs::write(base.join("prompt.json"), prompt.to_string()).unwrap();
        let output = lattice(base, &["run", "prompt.json", "-q"]);
        assert!(!output.status.success(), "{class}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("vae_sd"), "{class} names no file");
    }
}
