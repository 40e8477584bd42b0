//! Control networks: where they change the picture and where they must not.

use std::path::Path;

use lattice_weights::{StateDict, Weight, open_any, safetensors};
use serde_json::{Value as Json, json};

use crate::common::{difference, lattice, make, picture, project};
use crate::families::{checkpoint, slots, text_to_image};

/// A folder with a model, control networks and a hint.
fn base(model: &str, networks: &[&str]) -> tempfile::TempDir {
    let base = tempfile::tempdir().unwrap();
    make(base.path(), model, "checkpoints");
    for network in networks {
        make(base.path(), network, "controlnet");
    }
    std::fs::create_dir_all(base.path().join("input")).unwrap();
    std::fs::copy(project("testdata/demo/init_apple_mask.png"), base.path().join("input/hint.png")).unwrap();
    base
}

fn uncontrolled(model: &str) -> Json {
    text_to_image(checkpoint(model), slots("m"))
}

fn loader(network: &str) -> Json {
    json!({"class_type": "ControlNetLoader", "inputs": {"control_net_name": format!("{network}.safetensors")}})
}

/// Node `id` controls what the sampler reads by the network that slot 0 of `from` holds.
fn apply(prompt: &mut Json, id: &str, from: &str, strength: f64, (start, end): (f64, f64)) {
    prompt["i"] = json!({"class_type": "LoadImage", "inputs": {"image": "hint.png"}});
    prompt[id] = json!({"class_type": "ControlNetApplyAdvanced", "inputs": {
        "positive": prompt["k"]["inputs"]["positive"], "negative": prompt["k"]["inputs"]["negative"],
        "control_net": [from, 0], "image": ["i", 0], "strength": strength, "start_percent": start,
        "end_percent": end}});
    prompt["k"]["inputs"]["positive"] = json!([id, 0]);
    prompt["k"]["inputs"]["negative"] = json!([id, 1]);
}

fn controlled(model: &str, network: &str, strength: f64, range: (f64, f64)) -> Json {
    let mut prompt = uncontrolled(model);
    prompt["c"] = loader(network);
    apply(&mut prompt, "a", "c", strength, range);
    prompt
}

fn pixels_of(base: &Path, prompt: &Json) -> Vec<u8> {
    picture(base, prompt).2
}

#[test]
fn a_controlnet_works_as_strongly_and_as_long_as_it_is_told() {
    let base = base("sd15", &["cn_sd15", "cn_sd15_diffusers"]);
    let base = base.path();
    let plain = pixels_of(base, &uncontrolled("sd15"));
    let of = |strength, range| pixels_of(base, &controlled("sd15", "cn_sd15", strength, range));
    let full = of(1.0, (0.0, 1.0));
    assert!(difference(&full, &plain) > 4, "the control changes nothing");
    assert_eq!(of(0.0, (0.0, 1.0)), plain, "strength 0");
    assert_eq!(of(1.0, (1.0, 1.0)), plain, "a range after the last step");
    let early = of(1.0, (0.0, 0.3));
    assert!(difference(&early, &plain) > 1 && difference(&early, &full) > 1, "a part of the sampling");

    // The same network twice at half the strength: residuals add up.
    let mut twice = controlled("sd15", "cn_sd15", 0.5, (0.0, 1.0));
    apply(&mut twice, "b", "c", 0.5, (0.0, 1.0));
    assert!(difference(&pixels_of(base, &twice), &full) <= 1);

    // The old node controls the positive prompt, which lends its control to the negative one.
    let mut old = controlled("sd15", "cn_sd15", 1.0, (0.0, 1.0));
    old["a"] = json!({"class_type": "ControlNetApply", "inputs": {
        "conditioning": ["p", 0], "control_net": ["c", 0], "image": ["i", 0], "strength": 1.0}});
    old["k"]["inputs"]["negative"] = json!(["n", 0]);
    assert!(difference(&pixels_of(base, &old), &full) <= 1);

    // Another layout of the file.
    assert!(
        difference(&pixels_of(base, &controlled("sd15", "cn_sd15_diffusers", 1.0, (0.0, 1.0))), &plain) > 4
    );
}

#[test]
fn adapters_and_other_families() {
    let all = base("sd15", &["t2i_sd15", "t2i_sd15_1ch", "t2i_sd15_light"]);
    let plain = pixels_of(all.path(), &uncontrolled("sd15"));
    for network in ["t2i_sd15", "t2i_sd15_1ch", "t2i_sd15_light"] {
        let image = pixels_of(all.path(), &controlled("sd15", network, 1.0, (0.0, 1.0)));
        assert!(difference(&image, &plain) > 1, "{network} changes nothing");
    }
    // The tiny adapter for SDXL has other widths than the tiny SDXL, so there is only its error to see here.
    let all = base("sdxl", &["cn_sdxl", "t2i_sdxl"]);
    let plain = pixels_of(all.path(), &uncontrolled("sdxl"));
    let image = pixels_of(all.path(), &controlled("sdxl", "cn_sdxl", 1.0, (0.0, 1.0)));
    assert!(difference(&image, &plain) > 1);
    let message = failure(all.path(), &controlled("sdxl", "t2i_sdxl", 1.0, (0.0, 1.0)));
    assert!(message.contains("residuals have 32 channels where this network has 64"), "{message}");
    // Inpainting models show control networks the latent alone.
    let all = base("sd15_inpaint", &["cn_sd15"]);
    let plain = pixels_of(all.path(), &uncontrolled("sd15_inpaint"));
    let image = pixels_of(all.path(), &controlled("sd15_inpaint", "cn_sd15", 1.0, (0.0, 1.0)));
    assert!(difference(&image, &plain) > 1);
}

#[test]
fn control_networks_may_read_a_text_of_their_own() {
    let base = base("sd15", &["cn_sd15"]);
    let base = base.path();
    let prompt = |text: &str| {
        let mut prompt = controlled("sd15", "cn_sd15", 1.0, (0.0, 1.0));
        prompt["t"] = json!({"class_type": "CLIPTextEncodeControlnet", "inputs": {
            "clip": ["m", 1], "conditioning": ["p", 0], "text": text}});
        prompt["a"]["inputs"]["positive"] = json!(["t", 0]);
        pixels_of(base, &prompt)
    };
    let own = pixels_of(base, &controlled("sd15", "cn_sd15", 1.0, (0.0, 1.0)));
    let written = "a (red:1.2) fox";
    assert!(difference(&prompt(written), &own) <= 1, "the prompt's own text");
    assert!(difference(&prompt("a house on a hill, evening"), &own) > 1, "another text");
}

#[test]
fn differences_are_added_to_the_model_they_were_made_from() {
    let base = base("sd15", &["cn_sd15"]);
    let base = base.path();
    let model = open_any(&base.join("models/checkpoints/sd15.safetensors")).unwrap();
    let model = model.extract("model.diffusion_model.");
    let network = open_any(&base.join("models/controlnet/cn_sd15.safetensors")).unwrap();
    let mut differences = StateDict::new("differences", [].into(), network.metadata().clone());
    for (name, weight) in network.iter() {
        let own = weight.to_f32();
        let values = match model.get(name.trim_start_matches("control_model.")) {
            Some(of_model) => own.iter().zip(of_model.to_f32()).map(|(a, b)| a - b).collect(),
            None => own,
        };
        differences.insert(name, Weight::from_f32(values, weight.shape().clone()).unwrap());
    }
    differences.insert("difference", Weight::from_f32(vec![], 0).unwrap());
    safetensors::write(&base.join("models/controlnet/diff.safetensors"), &differences).unwrap();
    let mut prompt = controlled("sd15", "cn_sd15", 1.0, (0.0, 1.0));
    let whole = pixels_of(base, &prompt);
    prompt["c"] = json!({"class_type": "DiffControlNetLoader", "inputs": {
        "model": ["m", 0], "control_net_name": "diff.safetensors"}});
    assert!(difference(&pixels_of(base, &prompt), &whole) <= 1);
    let refused = failure(base, &controlled("sd15", "diff", 1.0, (0.0, 1.0)));
    assert!(refused.contains("differences to a base model"), "{refused}");
}

#[test]
fn networks_that_do_not_fit_are_named() {
    let base = base("sd15", &["cn_sdxl", "cn_flux_union"]);
    let base = base.path();
    std::fs::copy(
        base.join("models/checkpoints/sd15.safetensors"),
        base.join("models/controlnet/sd15.safetensors"),
    )
    .unwrap();
    for (network, words) in [
        ("cn_sdxl", "it is for another family of models"),
        ("cn_flux_union", "ControlNet of a transformer"),
        ("sd15", "holds no known ControlNet"),
    ] {
        let message = failure(base, &controlled("sd15", network, 1.0, (0.0, 1.0)));
        assert!(message.contains(words), "{network}: {message}");
    }
}

/// What the program says about a prompt that fails.
fn failure(base: &Path, prompt: &Json) -> String {
    std::fs::write(base.join("prompt.json"), prompt.to_string()).unwrap();
    let output = lattice(base, &["run", "prompt.json", "-q"]);
    assert!(!output.status.success());
    // Messages are wrapped to the width of a terminal.
    let text = String::from_utf8_lossy(&output.stderr).replace(['│', '\n'], " ");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
