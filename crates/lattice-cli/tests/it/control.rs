//! Control networks: where they change the picture and where they must not.

use std::path::Path;

use lattice_weights::{StateDict, Weight, open_any, safetensors};
use serde_json::{Value as Json, json};

use crate::common::{difference, lattice, make, picture, project};
use crate::families::{checkpoint, flux, slots, text_to_image};
use crate::loaders::{clip_tower, halves, tiny, widen, write};

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
    let base = base("sd15", &["cn_sdxl", "cn_flux_union", "cn_sdxl_union", "control_lora_sdxl"]);
    let base = base.path();
    std::fs::copy(
        base.join("models/checkpoints/sd15.safetensors"),
        base.join("models/controlnet/sd15.safetensors"),
    )
    .unwrap();
    for (network, words) in [
        ("cn_sdxl", "it is for another family of models"),
        ("cn_flux_union", "connect a VAE to the node"),
        ("cn_sdxl_union", "a vector condition of width 1664"),
        ("control_lora_sdxl", "it was made from another one"),
        ("sd15", "holds no known ControlNet"),
    ] {
        let message = failure(base, &controlled("sd15", network, 1.0, (0.0, 1.0)));
        assert!(message.contains(words), "{network}: {message}");
    }
}

/// Tensors with a pattern.
fn waves(dict: &mut StateDict, shapes: &[(&str, &[usize])], scale: f32) {
    for (name, shape) in shapes {
        let count: usize = shape.iter().product();
        let norm = name.contains("ln_") && name.ends_with("weight");
        let value = |i: usize| if norm { 1.0 } else { ((i * 37 + name.len() * 11) as f32).sin() * scale };
        dict.insert(*name, halves(&(0..count).map(value).collect::<Vec<_>>(), shape));
    }
}

/// The prompt with the kind of hint told.
fn of_kind(prompt: &Json, kind: &str) -> Json {
    let mut prompt = prompt.clone();
    prompt["u"] =
        json!({"class_type": "SetUnionControlNetType", "inputs": {"control_net": ["c", 0], "type": kind}});
    prompt["a"]["inputs"]["control_net"] = json!(["u", 0]);
    prompt
}

#[test]
fn a_controlnet_for_several_kinds_of_hint() {
    let base = base("sdxl", &[]);
    let base = base.path();
    let mut dict = tiny("cn_sdxl");
    assert!(dict.contains("controlnet_cond_embedding.conv_in.weight"), "the layout of union networks");
    let (width, kinds, time) = (64, 6, 256);
    waves(
        &mut dict,
        &[
            ("task_embedding", &[kinds, width]),
            ("transformer_layes.0.attn.in_proj_weight", &[3 * width, width]),
            ("transformer_layes.0.attn.in_proj_bias", &[3 * width]),
            ("transformer_layes.0.attn.out_proj.weight", &[width, width]),
            ("transformer_layes.0.attn.out_proj.bias", &[width]),
            ("transformer_layes.0.ln_1.weight", &[width]),
            ("transformer_layes.0.ln_1.bias", &[width]),
            ("transformer_layes.0.ln_2.weight", &[width]),
            ("transformer_layes.0.ln_2.bias", &[width]),
            ("transformer_layes.0.mlp.c_fc.weight", &[4 * width, width]),
            ("transformer_layes.0.mlp.c_fc.bias", &[4 * width]),
            ("transformer_layes.0.mlp.c_proj.weight", &[width, 4 * width]),
            ("transformer_layes.0.mlp.c_proj.bias", &[width]),
            ("spatial_ch_projs.weight", &[width, width]),
            ("spatial_ch_projs.bias", &[width]),
            ("control_add_embedding.linear_1.weight", &[time, kinds * 256]),
            ("control_add_embedding.linear_1.bias", &[time]),
            ("control_add_embedding.linear_2.weight", &[time, time]),
            ("control_add_embedding.linear_2.bias", &[time]),
        ],
        0.3,
    );
    write(base, "controlnet/union.safetensors", &dict);
    let plain = pixels_of(base, &uncontrolled("sdxl"));
    let prompt = controlled("sdxl", "union", 1.0, (0.0, 1.0));
    let unsaid = pixels_of(base, &prompt);
    assert!(difference(&unsaid, &plain) > 1);
    assert_eq!(pixels_of(base, &of_kind(&prompt, "auto")), unsaid);
    let (pose, depth) =
        (pixels_of(base, &of_kind(&prompt, "openpose")), pixels_of(base, &of_kind(&prompt, "depth")));
    assert!(pose != unsaid && pose != depth);
    let message = failure(base, &of_kind(&prompt, "tile"));
    assert!(message.contains("knows 6 kinds of hint"), "{message}");
}

#[test]
fn low_rank_differences_to_the_model_they_are_used_on() {
    let base = base("sdxl", &["control_lora_sdxl"]);
    let base = base.path();
    let plain = pixels_of(base, &uncontrolled("sdxl"));
    let of = |strength| pixels_of(base, &controlled("sdxl", "control_lora_sdxl", strength, (0.0, 1.0)));
    let full = of(1.0);
    assert!(difference(&full, &plain) > 1 && difference(&of(0.3), &full) > 1);
    assert_eq!(of(1.0), full);
}

/// Applies a network with a VAE, or without.
fn with_vae(prompt: &Json, network: &str, vae: Option<&Json>) -> Json {
    let mut prompt = prompt.clone();
    prompt["c"] = loader(network);
    apply(&mut prompt, "a", "c", 1.0, (0.0, 1.0));
    if let Some(vae) = vae {
        prompt["a"]["inputs"]["vae"] = vae.clone();
    }
    prompt
}

#[test]
fn controlnets_of_flux() {
    let base = base("sd15", &["cn_flux_union"]);
    let base = base.path();
    let mut loaders = flux(base, "flux_dev");
    let texts = loaders.as_object_mut().unwrap().remove("c").unwrap();
    loaders["t"] = texts;
    let vae = json!(["v", 0]);
    let plain = text_to_image(loaders, [json!(["u", 0]), json!(["t", 0]), vae.clone()]);
    let without = pixels_of(base, &plain);
    let prompt = with_vae(&plain, "cn_flux_union", Some(&vae));
    let unsaid = pixels_of(base, &prompt);
    assert!(difference(&unsaid, &without) > 1);
    let mut kind = prompt.clone();
    kind["un"] =
        json!({"class_type": "SetUnionControlNetType", "inputs": {"control_net": ["c", 0], "type": "depth"}});
    kind["a"]["inputs"]["control_net"] = json!(["un", 0]);
    assert_ne!(pixels_of(base, &kind), unsaid);
    // The old node for networks of this kind has the VAE as an input of its own.
    let mut old = prompt.clone();
    old["a"]["class_type"] = json!("ControlNetApplySD3");
    assert_eq!(pixels_of(base, &old), unsaid);
    let message = failure(base, &with_vae(&plain, "cn_flux_union", None));
    assert!(message.contains("connect a VAE"), "{message}");

    // Those of XLabs read pixels.
    let mut dict = tiny("flux_dev");
    dict = StateDict::new(
        "xlabs",
        dict.iter()
            .filter(|(name, _)| !name.starts_with("single_blocks") && !name.starts_with("final_layer"))
            .map(|(name, weight)| (name.to_owned(), weight.clone()))
            .collect(),
        dict.metadata().clone(),
    );
    let mut shapes: Vec<(String, Vec<usize>)> = vec![("pos_embed_input.weight".into(), vec![64, 64])];
    shapes.push(("pos_embed_input.bias".into(), vec![64]));
    for i in 0..8 {
        let inputs = if i == 0 { 3 } else { 16 };
        shapes.push((format!("input_hint_block.{}.weight", 2 * i), vec![16, inputs, 3, 3]));
        shapes.push((format!("input_hint_block.{}.bias", 2 * i), vec![16]));
    }
    for i in 0..2 {
        shapes.push((format!("controlnet_blocks.{i}.weight"), vec![64, 64]));
        shapes.push((format!("controlnet_blocks.{i}.bias"), vec![64]));
    }
    let shapes: Vec<(&str, &[usize])> = shapes.iter().map(|(n, s)| (n.as_str(), s.as_slice())).collect();
    waves(&mut dict, &shapes, 0.3);
    write(base, "controlnet/xlabs.safetensors", &dict);
    assert!(difference(&pixels_of(base, &with_vae(&plain, "xlabs", None)), &without) > 1);
}

#[test]
fn controlnets_of_stable_diffusion_3() {
    let base = base("sd15", &[]);
    let base = base.path();
    write(base, "text_encoders/l.safetensors", &clip_tower("clip_l", 768));
    write(base, "text_encoders/g.safetensors", &clip_tower("clip_g", 1280));
    for (model, network) in [("sd3_medium", "cn_sd3"), ("sd35_large", "cn_sd35_large")] {
        let mut dict = tiny(model);
        widen(&mut dict, "model.diffusion_model.context_embedder.weight", 4096);
        widen(&mut dict, "model.diffusion_model.y_embedder.mlp.0.weight", 2048);
        write(base, &format!("checkpoints/{model}.safetensors"), &dict);
        let mut loaders = checkpoint(model);
        loaders["t"] = json!({"class_type": "DualCLIPLoader", "inputs": {
            "clip_name1": "l.safetensors", "clip_name2": "g.safetensors", "type": "sd3"}});
        let vae = json!(["m", 2]);
        let plain = text_to_image(loaders, [json!(["m", 0]), json!(["t", 0]), vae.clone()]);
        let mut control = tiny(network);
        if network == "cn_sd3" {
            widen(&mut control, "context_embedder.weight", 4096);
        }
        write(base, &format!("controlnet/{network}.safetensors"), &control);
        let without = pixels_of(base, &plain);
        let prompt = with_vae(&plain, network, Some(&vae));
        assert!(difference(&pixels_of(base, &prompt), &without) > 1, "{network}");
        let message = failure(base, &with_vae(&plain, network, None));
        assert!(message.contains("connect a VAE"), "{message}");
        if network != "cn_sd3" {
            continue;
        }
        // One more channel says where to paint.
        let name = "pos_embed_input.proj.weight";
        let old = control.get(name).unwrap().clone();
        let (rows, inner) = (old.dims()[0], old.dims()[1] * 4);
        let wide = old
            .to_f32()
            .chunks(inner)
            .flat_map(|row| row.iter().copied().chain([0.5; 4]))
            .collect::<Vec<_>>();
        control.insert(name, halves(&wide, &[rows, 17, 2, 2]));
        write(base, "controlnet/inpaint.safetensors", &control);
        let mut prompt = with_vae(&plain, "inpaint", Some(&vae));
        let refused = failure(base, &prompt);
        assert!(refused.contains("hints of 17 channels"), "{refused}");
        prompt["a"]["class_type"] = json!("ControlNetInpaintingAliMamaApply");
        prompt["a"]["inputs"]["mask"] = json!(["i", 1]);
        let painted = pixels_of(base, &prompt);
        assert!(difference(&painted, &without) > 1);
        prompt["w"] = json!({"class_type": "InvertMask", "inputs": {"mask": ["i", 1]}});
        prompt["a"]["inputs"]["mask"] = json!(["w", 0]);
        assert_ne!(pixels_of(base, &prompt), painted, "the mask counts");
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
