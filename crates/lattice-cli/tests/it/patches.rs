//! Patches of a model's inner workings: each changes the picture, and none where it is set to do nothing.

use std::path::Path;

use serde_json::{Value as Json, json};

use crate::common::{difference, lattice, make, picture, pixels};
use crate::families::{checkpoint, flux_schnell, slots, text_to_image};

/// The picture of a prompt with a node between the loader and the sampler.
fn patched(base: &Path, prompt: &Json, class: &str, inputs: Json) -> Vec<u8> {
    let mut prompt = prompt.clone();
    prompt["x"] = json!({"class_type": class, "inputs": inputs});
    prompt["x"]["inputs"]["model"] = prompt["k"]["inputs"]["model"].clone();
    prompt["k"]["inputs"]["model"] = json!(["x", 0]);
    picture(base, &prompt).2
}

#[test]
fn patches_of_the_unet_change_the_picture() {
    let base = tempfile::tempdir().unwrap();
    make(base.path(), "sd15", "checkpoints");
    let plain = text_to_image(checkpoint("sd15"), slots("m"));
    let run = |class: &str, inputs: Json| patched(base.path(), &plain, class, inputs);
    let unpatched = picture(base.path(), &plain).2;
    let free_u = |b1: f64, s1: f64| json!({"b1": b1, "b2": b1, "s1": s1, "s2": s1});
    let shrink = |start: f64, end: f64| {
        json!({"block_number": 1, "downscale_factor": 2.0, "start_percent": start, "end_percent": end,
            "downscale_after_skip": true, "downscale_method": "bicubic", "upscale_method": "bilinear"})
    };
    let hyper_tile = |tile_size: u32| json!({"tile_size": tile_size, "swap_size": 1, "max_depth": 0, "scale_depth": false});
    let multiply = |out: f64| json!({"q": 1.0, "k": 1.0, "v": 1.0, "out": out});
    let temporal = |own: f64| json!({"self_structural": own, "self_temporal": 3.0, "cross_structural": 1.0, "cross_temporal": 3.0});
    // A node, inputs that change the picture, and inputs that do not.
    let cases = [
        ("UNetSelfAttentionMultiply", multiply(2.0), multiply(1.0)),
        ("UNetCrossAttentionMultiply", multiply(2.0), multiply(1.0)),
        ("UNetTemporalAttentionMultiply", temporal(2.0), temporal(1.0)),
        ("FreeU", free_u(1.5, 0.2), free_u(1.0, 1.0)),
        ("FreeU_V2", free_u(1.5, 0.2), free_u(1.0, 1.0)),
        ("HyperTile", hyper_tile(32), hyper_tile(2048)),
        ("TomePatchModel", json!({"ratio": 0.5}), json!({"ratio": 0.0})),
        ("PatchModelAddDownscale", shrink(0.0, 1.0), shrink(1.0, 1.0)),
        ("PerturbedAttentionGuidance", json!({"scale": 3.0}), json!({"scale": 0.0})),
        (
            "SelfAttentionGuidance",
            json!({"scale": 2.0, "blur_sigma": 2.0}),
            json!({"scale": 0.0, "blur_sigma": 2.0}),
        ),
    ];
    for (class, strong, weak) in cases {
        let changed = run(class, strong.clone());
        assert!(difference(&changed, &unpatched) > 1, "{class} changes nothing");
        assert!(changed == run(class, strong), "{class} is not reproducible");
        let rest = difference(&run(class, weak), &unpatched);
        assert!(rest <= 1, "{class} changes the picture by {rest} at rest");
    }
    assert!(run("TorchCompileModel", json!({"backend": "inductor"})) == unpatched);
}

#[test]
fn calls_that_are_left_out_and_windows() {
    let base = tempfile::tempdir().unwrap();
    make(base.path(), "sd15", "checkpoints");
    let mut plain = text_to_image(checkpoint("sd15"), slots("m"));
    plain["k"]["inputs"]["steps"] = json!(6);
    let run = |class: &str, inputs: Json| patched(base.path(), &plain, class, inputs);
    let unpatched = picture(base.path(), &plain).2;
    let cache = |threshold: f64, end: f64| json!({"reuse_threshold": threshold, "start_percent": 0.0, "end_percent": end, "verbose": true});
    for class in ["EasyCache", "LazyCache"] {
        let changed = run(class, cache(3.0, 1.0));
        assert!(difference(&changed, &unpatched) > 1, "{class} leaves nothing out");
        for rest in [cache(0.0, 1.0), cache(3.0, 0.0)] {
            assert!(difference(&run(class, rest), &unpatched) <= 1, "{class}");
        }
    }
    let windows = |length: u32, dim: u32, fuse: &str, schedule: &str| {
        json!({"context_length": length, "context_overlap": 3, "context_schedule": schedule, "context_stride": 2,
            "closed_loop": false, "fuse_method": fuse, "dim": dim})
    };
    // The latent has 12 rows.
    assert_eq!(run("ContextWindowsManual", windows(12, 2, "pyramid", "standard_static")), unpatched);
    let mut seen = vec![unpatched.clone()];
    for (fuse, schedule) in [
        ("pyramid", "standard_static"),
        ("flat", "batched"),
        ("relative", "looped_uniform"),
        ("overlap-linear", "standard_uniform"),
    ] {
        let cut = run("ContextWindowsManual", windows(8, 2, fuse, schedule));
        assert!(!seen.contains(&cut), "{fuse} {schedule}");
        seen.push(cut);
    }
    // Pictures of a batch do not see each other, so windows over it change nothing.
    plain["e"]["inputs"]["batch_size"] = json!(5);
    plain["b"] =
        json!({"class_type": "ImageFromBatch", "inputs": {"image": ["d", 0], "batch_index": 3, "length": 1}});
    plain["s"]["inputs"]["images"] = json!(["b", 0]);
    let fourth = picture(base.path(), &plain).2;
    let cut =
        patched(base.path(), &plain, "ContextWindowsManual", windows(4, 0, "pyramid", "standard_static"));
    assert!(difference(&cut, &fourth) <= 1);
    // Frames of a video.
    let mut wan = windows(5, 2, "pyramid", "standard_static");
    wan.as_object_mut().unwrap().remove("dim");
    let frames = patched(base.path(), &plain, "WanContextWindowsManual", wan);
    assert!(difference(&frames, &fourth) > 1);
}

#[test]
fn transformers_are_guided_away_from_themselves_without_blocks() {
    let base = tempfile::tempdir().unwrap();
    let loaders = flux_schnell(base.path());
    let at = [json!(["u", 0]), json!(["c", 0]), json!(["v", 0])];
    let plain = text_to_image(loaders, at);
    let run = |class: &str, inputs: Json| patched(base.path(), &plain, class, inputs);
    let unpatched = picture(base.path(), &plain).2;
    let dit = |double: &str, single: &str, scale: f64, rescale: f64| {
        json!({"double_layers": double, "single_layers": single, "scale": scale, "start_percent": 0.0,
            "end_percent": 1.0, "rescaling_scale": rescale})
    };
    let sd3 = json!({"layers": "0", "scale": 3.0, "start_percent": 0.0, "end_percent": 1.0});
    let simple = |double: &str| json!({"double_layers": double, "single_layers": "", "start_percent": 0.0, "end_percent": 1.0});
    let guided = run("SkipLayerGuidanceDiT", dit("0", "", 3.0, 0.0));
    assert!(difference(&guided, &unpatched) > 1);
    assert!(run("SkipLayerGuidanceSD3", sd3) == guided, "both nodes are one method");
    assert!(difference(&run("SkipLayerGuidanceDiT", dit("0", "", 3.0, 0.7)), &guided) > 1);
    assert!(difference(&run("SkipLayerGuidanceDiT", dit("", "1", 3.0, 0.0)), &guided) > 1);
    assert!(difference(&run("SkipLayerGuidanceDiTSimple", simple("0")), &unpatched) > 1);
    for (class, inputs) in [
        ("SkipLayerGuidanceDiT", dit("0", "0", 0.0, 0.0)),
        ("SkipLayerGuidanceDiT", dit("77", "", 3.0, 0.0)),
        ("SkipLayerGuidanceDiT", dit("", "none", 3.0, 0.0)),
        ("SkipLayerGuidanceDiTSimple", simple("77")),
    ] {
        assert!(difference(&run(class, inputs), &unpatched) <= 1, "{class} changes the picture at rest");
    }
}

#[test]
fn attention_of_text_encoders_can_be_scaled() {
    let base = tempfile::tempdir().unwrap();
    make(base.path(), "sd15", "checkpoints");
    let plain = text_to_image(checkpoint("sd15"), slots("m"));
    let scaled = |q: f64| {
        let mut prompt = plain.clone();
        prompt["c"] = json!({"class_type": "CLIPAttentionMultiply", "inputs": {
            "clip": ["m", 1], "q": q, "k": 1.0, "v": 1.0, "out": 1.0}});
        prompt["p"]["inputs"]["clip"] = json!(["c", 0]);
        picture(base.path(), &prompt).2
    };
    let unpatched = picture(base.path(), &plain).2;
    assert!(scaled(1.0) == unpatched && scaled(4.0) != unpatched);
}

#[test]
fn latents_survive_their_files() {
    let base = tempfile::tempdir().unwrap();
    make(base.path(), "sd15", "checkpoints");
    let mut prompt = text_to_image(checkpoint("sd15"), slots("m"));
    prompt["l"] =
        json!({"class_type": "SaveLatent", "inputs": {"samples": ["k", 0], "filename_prefix": "kept/l"}});
    std::fs::write(base.path().join("prompt.json"), prompt.to_string()).unwrap();
    let output = lattice(base.path(), &["run", "prompt.json", "-q"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let sampled = pixels(&base.path().join("output/p_00001_.png")).2;

    let file = base.path().join("output/kept/l_00001_.latent");
    let mut prompt = text_to_image(checkpoint("sd15"), slots("m"));
    let nodes = prompt.as_object_mut().unwrap();
    nodes.retain(|name, _| ["m", "d", "s"].contains(&name.as_str()));
    prompt["l"] = json!({"class_type": "LoadLatent", "inputs": {"latent": "kept/l_00001_.latent [output]"}});
    prompt["d"]["inputs"]["samples"] = json!(["l", 0]);
    assert!(picture(base.path(), &prompt).2 == sampled);

    std::fs::write(&file, "broken").unwrap();
    std::fs::write(base.path().join("prompt.json"), prompt.to_string()).unwrap();
    let refused = lattice(base.path(), &["run", "prompt.json", "-q"]);
    assert!(
        !refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("l_00001_.latent")
    );
}
