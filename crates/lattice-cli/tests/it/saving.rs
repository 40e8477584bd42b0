//! Merged and saved models through the program: what is read back gives the same picture.

use std::path::{Path, PathBuf};

use lattice_weights::{StateDict, StoredDType, open_any};
use serde_json::{Value as Json, json};

use crate::common::{lattice, make_seeded, picture};
use crate::families::{checkpoint, slots, text_to_image};

/// Runs a prompt that saves models.
fn run(base: &Path, prompt: &Json) {
    std::fs::write(base.join("save.json"), prompt.to_string()).unwrap();
    let output = lattice(base, &["run", "save.json", "-q"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The prompt's `m` replaced by the model, text encoders and VAE of node `x`.
fn through(mut prompt: Json, nodes: Json, at: [Json; 3]) -> Json {
    prompt["k"]["inputs"]["model"] = at[0].clone();
    for text in ["p", "n"] {
        prompt[text]["inputs"]["clip"] = at[1].clone();
    }
    prompt["d"]["inputs"]["vae"] = at[2].clone();
    prompt.as_object_mut().unwrap().extend(nodes.as_object().unwrap().clone());
    prompt
}

/// Moves what was saved to where loaders look.
fn install(base: &Path, saved: &str, to: &str) -> PathBuf {
    let to = base.join("models").join(to);
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    std::fs::rename(base.join("output").join(saved), &to).unwrap();
    to
}

fn save_checkpoint(from: [Json; 3], prefix: &str) -> Json {
    json!({"class_type": "CheckpointSave", "inputs": {
        "model": from[0], "clip": from[1], "vae": from[2], "filename_prefix": prefix}})
}

/// Square root of the mean squared difference of the tensors that both have.
fn distance(a: &StateDict, b: &StateDict) -> f64 {
    let pairs = a.iter().filter_map(|(name, weight)| Some((weight, b.get(name)?)));
    let squares: Vec<f64> = pairs
        .flat_map(|(a, b)| a.to_f32().into_iter().zip(b.to_f32()))
        .map(|(a, b)| f64::from(a - b).powi(2))
        .collect();
    (squares.iter().sum::<f64>() / squares.len() as f64).sqrt()
}

/// Loading and saving changes no tensor.
fn saved_again(base: &Path, name: &str) -> StateDict {
    make_seeded(base, name, "checkpoints", 0);
    let mut prompt = checkpoint(name);
    prompt["s"] = save_checkpoint(slots("m"), "checkpoints/again");
    run(base, &prompt);
    let file = install(base, "checkpoints/again_00001_.safetensors", "checkpoints/again.safetensors");
    let original = base.join(format!("models/checkpoints/{name}.safetensors"));
    let (old, new) = (open_any(&original).unwrap(), open_any(&file).unwrap());
    for (tensor, weight) in old.iter() {
        // Of a text tower only what it reads is kept; schedule tables follow from the settings.
        if tensor.ends_with("logit_scale") || !tensor.contains('.') {
            continue;
        }
        let again = new.get(tensor).unwrap_or_else(|| panic!("{tensor} is gone"));
        assert_eq!((again.dims(), again.dtype()), (weight.dims(), weight.dtype()), "{tensor}");
        assert_eq!(again.bytes(), weight.bytes(), "{tensor}");
    }
    new
}

/// Nor does it change the picture.
fn round_trip(name: &str) -> StateDict {
    let base = tempfile::tempdir().unwrap();
    let saved = saved_again(base.path(), name);
    let image = |name: &str| picture(base.path(), &text_to_image(checkpoint(name), slots("m"))).2;
    assert_eq!(image("again"), image(name));
    saved
}

#[test]
fn a_saved_checkpoint_is_the_same_model() {
    let sd1 = round_trip("sd15");
    let metadata = sd1.metadata();
    assert_eq!(metadata["modelspec.architecture"], "stable-diffusion-v1");
    assert_eq!(metadata["modelspec.predict_key"], "epsilon");
    let prompt: Json = serde_json::from_str(&metadata["prompt"]).unwrap();
    assert_eq!(prompt["s"]["class_type"], "CheckpointSave");
    // OpenCLIP towers are split when they are loaded and joined when they are saved.
    assert_eq!(round_trip("sd21").metadata()["modelspec.predict_key"], "v");
    round_trip("sdxl");
    let base = tempfile::tempdir().unwrap();
    saved_again(base.path(), "sd3_medium");
}

#[test]
fn parts_are_saved_alone() {
    let base = tempfile::tempdir().unwrap();
    let base = base.path();
    make_seeded(base, "sdxl", "checkpoints", 0);
    let before = picture(base, &text_to_image(checkpoint("sdxl"), slots("m"))).2;
    let mut prompt = checkpoint("sdxl");
    prompt["a"] = json!({"class_type": "ModelSave", "inputs": {"model": ["m", 0], "filename_prefix": "u"}});
    prompt["b"] = json!({"class_type": "CLIPSave", "inputs": {"clip": ["m", 1], "filename_prefix": "t/c"}});
    prompt["c"] = json!({"class_type": "VAESave", "inputs": {"vae": ["m", 2], "filename_prefix": "v"}});
    run(base, &prompt);
    install(base, "u_00001_.safetensors", "diffusion_models/u.safetensors");
    install(base, "t/c_clip_l_00001_.safetensors", "text_encoders/l.safetensors");
    install(base, "t/c_clip_g_00001_.safetensors", "text_encoders/g.safetensors");
    install(base, "v_00001_.safetensors", "vae/v.safetensors");
    let loaders = json!({
        "u": {"class_type": "UNETLoader", "inputs": {"unet_name": "u.safetensors", "weight_dtype": "default"}},
        "c": {"class_type": "DualCLIPLoader", "inputs": {
            "clip_name1": "l.safetensors", "clip_name2": "g.safetensors", "type": "sdxl"}},
        "v": {"class_type": "VAELoader", "inputs": {"vae_name": "v.safetensors"}},
    });
    let parts = text_to_image(loaders, [json!(["u", 0]), json!(["c", 0]), json!(["v", 0])]);
    assert_eq!(picture(base, &parts).2, before);
}

#[test]
fn a_patched_and_merged_model_is_saved_as_it_runs() {
    let base = tempfile::tempdir().unwrap();
    let base = base.path();
    make_seeded(base, "sd15", "checkpoints", 0);
    make_seeded(base, "lora_sd15_kohya", "loras", 0);
    std::fs::rename(
        base.join("models/checkpoints/sd15.safetensors"),
        base.join("models/checkpoints/a.safetensors"),
    )
    .unwrap();
    make_seeded(base, "sd15", "checkpoints", 1);
    let nodes = json!({
        "other": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a.safetensors"}},
        "lora": {"class_type": "LoraLoader", "inputs": {
            "model": ["other", 0], "clip": ["other", 1], "lora_name": "lora_sd15_kohya.safetensors",
            "strength_model": 0.7, "strength_clip": -0.5}},
        "merge": {"class_type": "ModelMergeBlocks", "inputs": {
            "model1": ["m", 0], "model2": ["lora", 0], "input": 0.25, "middle": 1.0, "out": 0.5}},
        "text": {"class_type": "CLIPMergeSimple", "inputs": {"clip1": ["m", 1], "clip2": ["lora", 1], "ratio": 0.4}},
    });
    let at = [json!(["merge", 0]), json!(["text", 0]), json!(["m", 2])];
    let merged = through(text_to_image(checkpoint("sd15"), slots("m")), nodes.clone(), at.clone());
    let before = picture(base, &merged).2;
    assert_ne!(before, picture(base, &text_to_image(checkpoint("sd15"), slots("m"))).2);

    let mut prompt = checkpoint("sd15");
    prompt.as_object_mut().unwrap().extend(nodes.as_object().unwrap().clone());
    prompt["s"] = save_checkpoint(at, "merged");
    run(base, &prompt);
    let file = install(base, "merged_00001_.safetensors", "checkpoints/merged.safetensors");
    assert_eq!(picture(base, &text_to_image(checkpoint("merged"), slots("m"))).2, before);

    let open = |name: &str| open_any(&base.join(format!("models/checkpoints/{name}.safetensors"))).unwrap();
    let (first, second, result) = (open("sd15"), open("a"), open_any(&file).unwrap());
    let value = |dict: &StateDict, name: &str| dict.get(name).unwrap().to_f32();
    // Longest name wins: `out.2` is the output's, `output_blocks` too, the time embedding gets the first ratio.
    for (name, ratio) in [
        ("model.diffusion_model.out.0.weight", 0.5),
        ("model.diffusion_model.middle_block.0.in_layers.0.weight", 1.0),
        ("model.diffusion_model.time_embed.0.bias", 0.25),
    ] {
        let expected = value(&first, name).into_iter().zip(value(&second, name));
        for (got, (a, b)) in value(&result, name).into_iter().zip(expected) {
            let want = ratio * a + (1.0 - ratio) * b;
            assert!((got - want).abs() <= 1e-3 * want.abs().max(1e-3), "{name}: {got} for {want}");
        }
    }
}

#[test]
fn a_difference_is_saved_as_a_lora_and_brings_the_model_back() {
    let base = tempfile::tempdir().unwrap();
    let base = base.path();
    make_seeded(base, "sd15", "checkpoints", 0);
    make_seeded(base, "lora_sd15_kohya", "loras", 0);
    let tuned = json!({"lora": {"class_type": "LoraLoader", "inputs": {
        "model": ["m", 0], "clip": ["m", 1], "lora_name": "lora_sd15_kohya.safetensors",
        "strength_model": 1.0, "strength_clip": 1.0}}});
    let lora_at = [json!(["lora", 0]), json!(["lora", 1]), json!(["m", 2])];
    let mut prompt = checkpoint("sd15");
    prompt.as_object_mut().unwrap().extend(tuned.as_object().unwrap().clone());
    prompt["tuned"] = save_checkpoint(lora_at, "tuned");
    prompt["dm"] = json!({"class_type": "ModelMergeSubtract", "inputs": {
        "model1": ["lora", 0], "model2": ["m", 0], "multiplier": 1.0}});
    prompt["dt"] = json!({"class_type": "CLIPMergeSubtract", "inputs": {
        "clip1": ["lora", 1], "clip2": ["m", 1], "multiplier": 1.0}});
    for (id, kind, rank) in [("e", "standard", 16), ("f", "full_diff", 1)] {
        prompt[id] = json!({"class_type": "LoraSave", "inputs": {"filename_prefix": kind, "rank": rank,
            "lora_type": kind, "bias_diff": true, "model_diff": ["dm", 0], "text_encoder_diff": ["dt", 0]}});
    }
    run(base, &prompt);
    let wanted =
        open_any(&install(base, "tuned_00001_.safetensors", "checkpoints/tuned.safetensors")).unwrap();
    let plain = open_any(&base.join("models/checkpoints/sd15.safetensors")).unwrap();
    let change = distance(&wanted, &plain);
    for (kind, share) in [("standard", 0.2), ("full_diff", 0.01)] {
        let file = install(base, &format!("{kind}_00001_.safetensors"), &format!("loras/{kind}.safetensors"));
        assert!(open_any(&file).unwrap().iter().all(|(_, w)| w.dtype() == StoredDType::F16));
        let mut prompt = checkpoint("sd15");
        prompt["lora"] = json!({"class_type": "LoraLoader", "inputs": {
            "model": ["m", 0], "clip": ["m", 1], "lora_name": format!("{kind}.safetensors"),
            "strength_model": 1.0, "strength_clip": 1.0}});
        prompt["s"] = save_checkpoint([json!(["lora", 0]), json!(["lora", 1]), json!(["m", 2])], kind);
        run(base, &prompt);
        let got = open_any(&base.join(format!("output/{kind}_00001_.safetensors"))).unwrap();
        let off = distance(&got, &wanted);
        // The largest values of the factors are cut, so a low-rank copy is near but not exact.
        assert!(off <= share * change, "{kind}: off by {off} of a change of {change}");
    }
}
