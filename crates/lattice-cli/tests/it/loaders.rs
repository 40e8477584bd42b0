//! Loaders of folders and of models that read pictures; families whose text encoders come in files of their own.

use std::collections::BTreeMap;
use std::path::Path;

use indexmap::IndexMap;
use lattice_goldens::synthetic::Manifest;
use lattice_models::detect::TextPart;
use lattice_models::diffusers::{Piece, Plan, autoencoder_kl, unet};
use lattice_models::{TextInput, TextOptions};
use lattice_weights::convert::{Output, convert};
use lattice_weights::rounding::encode;
use lattice_weights::{BlockType, StateDict, StoredDType, Weight, open_any, safetensors};
use serde_json::{Value as Json, json};

use crate::common::{difference, lattice, make, picture, project};
use crate::families::{checkpoint, slots, text_to_image, three_ways};

fn manifest(name: &str) -> Manifest {
    Manifest::find(&Manifest::project_root(), name).unwrap()
}

pub(crate) fn tiny(name: &str) -> StateDict {
    manifest(&format!("tiny/{name}")).state_dict(0, StoredDType::F16).unwrap()
}

pub(crate) fn write(base: &Path, file: &str, dict: &StateDict) {
    let path = base.join("models").join(file);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    safetensors::write(&path, dict).unwrap();
}

pub(crate) fn halves(values: &[f32], shape: &[usize]) -> Weight {
    Weight::new(StoredDType::F16, shape, encode(values, StoredDType::F16).unwrap(), None).unwrap()
}

/// A part of a checkpoint under the names that its own folder in the diffusers layout has.
fn folder_part(dict: &StateDict, names: &str, plan: impl Fn(&[String]) -> Plan) -> StateDict {
    let published = manifest(names);
    let names: Vec<String> = published.plans(0, StoredDType::F16).map(|(name, _)| name.to_owned()).collect();
    let mut tensors = IndexMap::new();
    for (ours, piece) in plan(&names).0 {
        let Piece::Copy(theirs) = piece else { panic!("{ours} is not a copy") };
        // Levels of one width need no projection between them, which the published ones have.
        if let Some(weight) = dict.get(&ours) {
            tensors.insert(theirs, weight.clone());
        }
    }
    assert_eq!(tensors.len(), dict.len());
    StateDict::new("part", tensors, dict.metadata().clone())
}

#[test]
fn a_diffusers_folder_is_the_same_model_as_the_single_file() {
    let base = tempfile::tempdir().unwrap();
    let base = base.path();
    make(base, "sd15", "checkpoints");
    let single = open_any(&base.join("models/checkpoints/sd15.safetensors")).unwrap();
    let network = folder_part(&single.extract("model.diffusion_model."), "diffusers_sd15_unet", |names| {
        unet(names.iter().map(String::as_str))
    });
    let vae = folder_part(&single.extract("first_stage_model."), "diffusers_sd_vae", |names| {
        autoencoder_kl(names.iter().map(String::as_str))
    });
    write(base, "diffusers/fox/unet/diffusion_pytorch_model.safetensors", &network);
    write(base, "diffusers/fox/vae/diffusion_pytorch_model.safetensors", &vae);
    let text = single.extract("cond_stage_model.transformer.");
    write(base, "diffusers/fox/text_encoder/model.safetensors", &text);
    std::fs::write(base.join("models/diffusers/fox/model_index.json"), "{}").unwrap();
    let folder = json!({"m": {"class_type": "DiffusersLoader", "inputs": {"model_path": "fox"}}});
    let image = |loader: Json| picture(base, &text_to_image(loader, slots("m"))).2;
    let epsilon = image(folder.clone());
    assert_eq!(epsilon, image(checkpoint("sd15")));
    // What no tensor tells stands in the scheduler's settings.
    std::fs::create_dir(base.join("models/diffusers/fox/scheduler")).unwrap();
    let settings = r#"{"prediction_type": "v_prediction"}"#;
    std::fs::write(base.join("models/diffusers/fox/scheduler/scheduler_config.json"), settings).unwrap();
    assert_ne!(image(folder), epsilon);
    let inspected = lattice(base, &["inspect", "models/diffusers/fox"]);
    assert!(String::from_utf8_lossy(&inspected.stdout).contains("diffusers"));
}

fn transposed(weight: &Weight) -> Weight {
    let (rows, columns) = (weight.dims()[0], weight.dims()[1]);
    let values = weight.to_f32();
    let turned: Vec<f32> =
        (0..columns).flat_map(|c| (0..rows).map(move |r| r * columns + c)).map(|i| values[i]).collect();
    halves(&turned, &[columns, rows])
}

/// A vision tower under OpenCLIP's names.
fn openclip_vision(dict: &StateDict) -> IndexMap<String, Weight> {
    let model = dict.extract("vision_model.");
    let get = |name: &str| model.get(name).unwrap_or_else(|| panic!("no {name}")).clone();
    let mut out = IndexMap::from([
        ("proj".to_owned(), transposed(dict.get("visual_projection.weight").unwrap())),
        ("conv1.weight".to_owned(), get("embeddings.patch_embedding.weight")),
        ("class_embedding".to_owned(), get("embeddings.class_embedding")),
        ("positional_embedding".to_owned(), get("embeddings.position_embedding.weight")),
    ]);
    for end in ["weight", "bias"] {
        out.insert(format!("ln_pre.{end}"), get(&format!("pre_layrnorm.{end}")));
        out.insert(format!("ln_post.{end}"), get(&format!("post_layernorm.{end}")));
    }
    for i in 0..model.root().at("encoder").at("layers").count() {
        let (to, from) = (format!("transformer.resblocks.{i}"), format!("encoder.layers.{i}"));
        for end in ["weight", "bias"] {
            let parts = ["q", "k", "v"].map(|p| get(&format!("{from}.self_attn.{p}_proj.{end}")));
            let mut shape = parts[0].dims().to_vec();
            shape[0] *= 3;
            let values: Vec<f32> = parts.iter().flat_map(Weight::to_f32).collect();
            out.insert(format!("{to}.attn.in_proj_{end}"), halves(&values, &shape));
            for (theirs, ours) in [
                ("ln_1", "layer_norm1"),
                ("ln_2", "layer_norm2"),
                ("attn.out_proj", "self_attn.out_proj"),
                ("mlp.c_fc", "mlp.fc1"),
                ("mlp.c_proj", "mlp.fc2"),
            ] {
                out.insert(format!("{to}.{theirs}.{end}"), get(&format!("{from}.{ours}.{end}")));
            }
        }
    }
    out
}

/// A Stable Diffusion 2 that reads pictures, with their tower and the statistics of its embeddings.
fn unclip(base: &Path) {
    let mut dict = tiny("sd21");
    let embedding = dict.get("model.diffusion_model.time_embed.2.weight").unwrap().dims()[0];
    let tower = openclip_vision(&tiny("clip_vision_vit_h"));
    let width = tower["proj"].dims()[1];
    let wave = |i: usize| (i as f32 * 0.7).sin();
    for (name, shape) in [
        ("label_emb.0.0.weight", vec![embedding, 2 * width]),
        ("label_emb.0.0.bias", vec![embedding]),
        ("label_emb.0.2.weight", vec![embedding, embedding]),
        ("label_emb.0.2.bias", vec![embedding]),
    ] {
        let values: Vec<f32> = (0..shape.iter().product()).map(|i| 0.3 * wave(i)).collect();
        dict.insert(format!("model.diffusion_model.{name}"), halves(&values, &shape));
    }
    let means: Vec<f32> = (0..width).map(|i| 0.2 * wave(i)).collect();
    dict.insert("noise_augmentor.data_mean", halves(&means, &[1, width]));
    dict.insert("noise_augmentor.data_std", halves(&vec![0.5; width], &[1, width]));
    for (name, weight) in tower {
        dict.insert(format!("embedder.model.visual.{name}"), weight);
    }
    let mut metadata = dict.metadata().clone();
    let mut settings: Json = serde_json::from_str(&metadata["lattice.hparams"]).unwrap();
    let vision = tiny("clip_vision_vit_h").metadata()["lattice.hparams"].clone();
    settings["vision"] = serde_json::from_str(&vision).unwrap();
    metadata.insert("lattice.hparams".into(), settings.to_string());
    write(base, "checkpoints/unclip.safetensors", &dict.with_metadata(metadata));
}

#[test]
fn an_unclip_checkpoint_has_its_vision_tower() {
    let base = tempfile::tempdir().unwrap();
    let base = base.path();
    unclip(base);
    let loader =
        |class: &str| json!({"m": {"class_type": class, "inputs": {"ckpt_name": "unclip.safetensors"}}});
    let image = picture(base, &text_to_image(loader("unCLIPCheckpointLoader"), slots("m"))).2;
    assert!(image.iter().any(|&v| v != image[0]));
    assert_eq!(picture(base, &text_to_image(loader("CheckpointLoaderSimple"), slots("m"))).2, image);
    let mut only = text_to_image(loader("unCLIPCheckpointLoader"), slots("m"));
    only["o"] =
        json!({"class_type": "ImageOnlyCheckpointLoader", "inputs": {"ckpt_name": "unclip.safetensors"}});
    only["k"]["inputs"]["model"] = json!(["o", 0]);
    only["d"]["inputs"]["vae"] = json!(["o", 2]);
    assert_eq!(picture(base, &only).2, image);

    // A picture beside the prompt.
    std::fs::create_dir_all(base.join("input")).unwrap();
    std::fs::copy(project("testdata/demo/init_apple_mask.png"), base.join("input/hint.png")).unwrap();
    let shown = |pictures: &[(f64, f64)], seed: u64| {
        let mut prompt = text_to_image(loader("unCLIPCheckpointLoader"), slots("m"));
        prompt["k"]["inputs"]["seed"] = json!(seed);
        prompt["i"] = json!({"class_type": "LoadImage", "inputs": {"image": "hint.png"}});
        prompt["ce"] = json!({"class_type": "CLIPVisionEncode", "inputs": {
            "clip_vision": ["m", 3], "image": ["i", 0], "crop": "center"}});
        for (i, (strength, noise)) in pictures.iter().enumerate() {
            prompt[format!("u{i}")] = json!({"class_type": "unCLIPConditioning", "inputs": {
                "conditioning": prompt["k"]["inputs"]["positive"], "clip_vision_output": ["ce", 0],
                "strength": strength, "noise_augmentation": noise}});
            prompt["k"]["inputs"]["positive"] = json!([format!("u{i}"), 0]);
        }
        picture(base, &prompt).2
    };
    assert_eq!(shown(&[], 3), image);
    assert_eq!(shown(&[(0.0, 0.5)], 3), image, "strength 0 shows nothing");
    let full = shown(&[(1.0, 0.0)], 3);
    assert_eq!(shown(&[(1.0, 0.0)], 3), full);
    assert!(difference(&full, &image) > 1);
    assert!(difference(&full, &shown(&[(0.3, 0.0)], 3)) > 1, "the strength");
    assert!(difference(&full, &shown(&[(1.0, 0.6)], 3)) > 1, "the noise");
    assert!(difference(&full, &shown(&[(1.0, 0.0), (0.5, 0.0)], 3)) > 1, "two pictures");

    // Saved without the text encoder, the model, its tower and its statistics are the same.
    let mut saving = loader("unCLIPCheckpointLoader");
    saving["s"] = json!({"class_type": "ImageOnlyCheckpointSave", "inputs": {
        "model": ["m", 0], "clip_vision": ["m", 3], "vae": ["m", 2], "filename_prefix": "checkpoints/kept"}});
    std::fs::write(base.join("saving.json"), saving.to_string()).unwrap();
    let output = lattice(base, &["run", "saving.json", "-q"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut kept = text_to_image(loader("unCLIPCheckpointLoader"), slots("m"));
    kept["o"] = json!({"class_type": "ImageOnlyCheckpointLoader", "inputs": {
        "ckpt_name": "kept_00001_.safetensors"}});
    kept["i"] = json!({"class_type": "LoadImage", "inputs": {"image": "hint.png"}});
    kept["ce"] = json!({"class_type": "CLIPVisionEncode", "inputs": {
        "clip_vision": ["o", 1], "image": ["i", 0], "crop": "center"}});
    kept["u"] = json!({"class_type": "unCLIPConditioning", "inputs": {
        "conditioning": ["p", 0], "clip_vision_output": ["ce", 0], "strength": 1.0, "noise_augmentation": 0.6}});
    kept["k"]["inputs"]["positive"] = json!(["u", 0]);
    kept["k"]["inputs"]["model"] = json!(["o", 0]);
    kept["d"]["inputs"]["vae"] = json!(["o", 2]);
    assert_eq!(picture(base, &kept).2, shown(&[(1.0, 0.6)], 3));
}

#[test]
fn a_network_can_be_stored_in_8_bits() {
    let base = tempfile::tempdir().unwrap();
    let base = base.path();
    make(base, "sd15", "checkpoints");
    make(base, "sd15", "diffusion_models");
    let image = |dtype: &str| {
        let mut prompt =
            text_to_image(checkpoint("sd15"), [json!(["u", 0]), json!(["m", 1]), json!(["m", 2])]);
        prompt["u"] = json!({"class_type": "UNETLoader", "inputs": {
            "unet_name": "sd15.safetensors", "weight_dtype": dtype}});
        picture(base, &prompt).2
    };
    let (plain, e4m3, e5m2) = (image("default"), image("fp8_e4m3fn"), image("fp8_e5m2"));
    assert_eq!(plain, picture(base, &text_to_image(checkpoint("sd15"), slots("m"))).2);
    assert!(e4m3 != plain && e5m2 != plain && e4m3 != e5m2);
}

/// Columns added to a matrix.
pub(crate) fn widen(dict: &mut StateDict, name: &str, columns: usize) {
    let weight = dict.get(name).unwrap_or_else(|| panic!("no {name}"));
    let (rows, old) = (weight.dims()[0], weight.dims()[1]);
    let values = weight.to_f32();
    let wave = |r: usize, c: usize| ((r * 31 + c * 17) as f32).sin() * 0.02;
    let wide: Vec<f32> = (0..rows)
        .flat_map(|r| (0..columns).map(move |c| (r, c)))
        .map(|(r, c)| if c < old { values[r * old + c] } else { wave(r, c) })
        .collect();
    dict.insert(name, halves(&wide, &[rows, columns]));
}

/// Tensors in 8 bits, small values with a pattern; norms are ones.
fn tower(family: &str, shapes: &[(&str, &[usize])]) -> StateDict {
    let tensors = shapes.iter().map(|(name, shape)| {
        let count: usize = shape.iter().product();
        let norm = name.contains("norm") && name.ends_with("weight");
        let weight = if norm {
            halves(&vec![1.0; count], shape)
        } else {
            let mut state = name.len() as u32;
            let bytes: Vec<u8> = (0..count)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    // Sign and mantissa at random, exponents of about 2^-5.
                    ((state >> 24) as u8 & 0x8f) | 0x10
                })
                .collect();
            Weight::new(StoredDType::F8E4M3, *shape, bytes.into(), None).unwrap()
        };
        ((*name).to_owned(), weight)
    });
    let metadata = BTreeMap::from([("lattice.family".to_owned(), family.to_owned())]);
    StateDict::new(family, tensors.collect(), metadata)
}

/// One block of a CLIP text tower of a published width.
pub(crate) fn clip_tower(family: &str, width: usize) -> StateDict {
    let layer = "text_model.encoder.layers.0";
    let mut shapes: Vec<(String, Vec<usize>)> = vec![
        ("text_model.embeddings.token_embedding.weight".into(), vec![49408, width]),
        ("text_model.embeddings.position_embedding.weight".into(), vec![77, width]),
        ("text_projection.weight".into(), vec![width, width]),
    ];
    for (name, shape) in [
        ("self_attn.q_proj", vec![width, width]),
        ("self_attn.k_proj", vec![width, width]),
        ("self_attn.v_proj", vec![width, width]),
        ("self_attn.out_proj", vec![width, width]),
        ("mlp.fc1", vec![64, width]),
        ("mlp.fc2", vec![width, 64]),
    ] {
        shapes.push((format!("{layer}.{name}.bias"), vec![shape[0]]));
        shapes.push((format!("{layer}.{name}.weight"), shape));
    }
    for norm in
        [format!("{layer}.layer_norm1"), format!("{layer}.layer_norm2"), "text_model.final_layer_norm".into()]
    {
        shapes.push((format!("{norm}.weight"), vec![width]));
        shapes.push((format!("{norm}.bias"), vec![width]));
    }
    let shapes: Vec<(&str, &[usize])> = shapes.iter().map(|(n, s)| (n.as_str(), s.as_slice())).collect();
    tower(family, &shapes)
}

/// One block of T5's encoder of the published width, with a single head.
pub(crate) fn t5_tower() -> StateDict {
    tower(
        "t5xxl",
        &[
            ("shared.weight", &[32128, 4096]),
            ("encoder.block.0.layer.0.SelfAttention.q.weight", &[64, 4096]),
            ("encoder.block.0.layer.0.SelfAttention.k.weight", &[64, 4096]),
            ("encoder.block.0.layer.0.SelfAttention.v.weight", &[64, 4096]),
            ("encoder.block.0.layer.0.SelfAttention.o.weight", &[4096, 64]),
            ("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", &[32, 1]),
            ("encoder.block.0.layer.0.layer_norm.weight", &[4096]),
            ("encoder.block.0.layer.1.DenseReluDense.wi_0.weight", &[64, 4096]),
            ("encoder.block.0.layer.1.DenseReluDense.wi_1.weight", &[64, 4096]),
            ("encoder.block.0.layer.1.DenseReluDense.wo.weight", &[4096, 64]),
            ("encoder.block.0.layer.1.layer_norm.weight", &[4096]),
            ("encoder.final_layer_norm.weight", &[4096]),
        ],
    )
}

#[test]
fn stable_diffusion_3_with_any_of_its_text_encoders() {
    let base = tempfile::tempdir().unwrap();
    let base = base.path();
    write(base, "text_encoders/l.safetensors", &clip_tower("clip_l", 768));
    write(base, "text_encoders/g.safetensors", &clip_tower("clip_g", 1280));
    write(base, "text_encoders/t.safetensors", &t5_tower());
    let loaders = |model: &str, texts: &[&str]| {
        let mut nodes = checkpoint(model);
        let mut inputs = json!({});
        for (i, text) in texts.iter().enumerate() {
            let name = if texts.len() == 1 { "clip_name".to_owned() } else { format!("clip_name{}", i + 1) };
            inputs[name] = json!(format!("{text}.safetensors"));
        }
        let class = ["CLIPLoader", "DualCLIPLoader", "TripleCLIPLoader"][texts.len() - 1];
        if texts.len() < 3 {
            inputs["type"] = json!("sd3");
        }
        nodes["c"] = json!({"class_type": class, "inputs": inputs});
        nodes
    };
    let at = [json!(["m", 0]), json!(["c", 0]), json!(["m", 2])];
    for name in ["sd3_medium", "sd35_medium", "sd35_large"] {
        let mut dict = tiny(name);
        widen(&mut dict, "model.diffusion_model.context_embedder.weight", 4096);
        widen(&mut dict, "model.diffusion_model.y_embedder.mlp.0.weight", 2048);
        write(base, &format!("checkpoints/{name}.safetensors"), &dict);
        three_ways(base, &loaders(name, &["t", "l", "g"]), at.clone());
    }
    let mut pictures: Vec<Vec<u8>> = Vec::new();
    for texts in [&["l", "g", "t"][..], &["g", "t"], &["l", "t"], &["l", "g"], &["t"]] {
        let image = picture(base, &text_to_image(loaders("sd3_medium", texts), at.clone())).2;
        assert!(!pictures.contains(&image), "{texts:?} is like another");
        pictures.push(image);
    }
}

/// A T5 encoder under llama.cpp's names, in a GGUF file with its blocks as they are, encodes as the same weights under their own names do.
#[test]
fn quantised_t5_files_of_llama_cpp_are_text_encoders() {
    let folder = tempfile::tempdir().unwrap();
    let t5 = tiny("te_t5xxl");
    let mut renamed = StateDict::new("t5", IndexMap::new(), BTreeMap::new());
    for (name, weight) in t5.iter() {
        let theirs = match name {
            "shared.weight" => "token_embd.weight".to_owned(),
            "encoder.final_layer_norm.weight" => "enc.output_norm.weight".to_owned(),
            name => [
                ("encoder.block.", "enc.blk."),
                (".layer.0.layer_norm", ".attn_norm"),
                (".layer.1.layer_norm", ".ffn_norm"),
                (".layer.0.SelfAttention.relative_attention_bias", ".attn_rel_b"),
                (".layer.0.SelfAttention.", ".attn_"),
                (".layer.1.DenseReluDense.wi_0", ".ffn_gate"),
                (".layer.1.DenseReluDense.wi_1", ".ffn_up"),
                (".layer.1.DenseReluDense.wo", ".ffn_down"),
            ]
            .iter()
            .fold(name.to_owned(), |name, (from, to)| name.replace(from, to)),
        };
        renamed.insert(theirs, weight.clone());
    }
    let encode = |dict: &StateDict| {
        let part = TextPart::load(dict).unwrap();
        assert_eq!(part.kind.name(), "t5xxl");
        let input = TextInput::from_ids(&[vec![3, 9, 1712, 1, 0, 0]]);
        let options = TextOptions { layer: 1, final_norm: true };
        part.encoder.encode(&input, options).unwrap().states.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    let want = encode(&t5);
    for (dtype, tolerance) in [(StoredDType::F16, 0.0), (StoredDType::Block(BlockType::Q8_0), 0.03)] {
        let path = folder.path().join(format!("{dtype}.gguf"));
        convert(&renamed, &path, Output::Gguf, Some(dtype), BTreeMap::new(), |_| ()).unwrap();
        let dict = open_any(&path).unwrap();
        assert_eq!(dict.get("enc.blk.1.ffn_up.weight").unwrap().dtype(), dtype);
        let got = encode(&dict);
        let largest = want.iter().fold(0f32, |m, v| m.max(v.abs()));
        for (g, w) in got.iter().zip(&want) {
            assert!((g - w).abs() <= tolerance * largest, "{dtype}: {g} for {w}");
        }
    }
}

/// HiDream's four encoders are opened and recognised; its network is not there, and the error says so.
#[test]
fn four_text_encoders_are_recognised() {
    let base = tempfile::tempdir().unwrap();
    let base = base.path();
    for name in ["te_clip_l", "te_clip_g", "te_t5xxl", "te_llama3_8b"] {
        make(base, name, "text_encoders");
    }
    let run = |names: [&str; 4]| {
        let inputs: Vec<(String, String)> = names
            .iter()
            .enumerate()
            .map(|(i, name)| (format!("clip_name{}", i + 1), format!("te_{name}.safetensors")))
            .collect();
        let inputs: BTreeMap<String, String> = inputs.into_iter().collect();
        make(base, "sd15", "checkpoints");
        let mut prompt =
            text_to_image(checkpoint("sd15"), [json!(["m", 0]), json!(["q", 0]), json!(["m", 2])]);
        prompt["q"] = json!({"class_type": "QuadrupleCLIPLoader", "inputs": inputs});
        std::fs::write(base.join("p.json"), prompt.to_string()).unwrap();
        let output = lattice(base, &["run", "p.json", "-q"]);
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let error = run(["clip_l", "clip_g", "t5xxl", "llama3_8b"]);
    assert!(error.contains("te_llama3_8b.safetensors") && error.contains("language model"), "{error}");
    let error = run(["clip_l", "clip_g", "t5xxl", "t5xxl"]);
    assert!(error.contains("no model of type hidream reads its prompts through"), "{error}");
}

#[test]
fn sdxl_inpainting() {
    let base = tempfile::tempdir().unwrap();
    let mut dict = tiny("sdxl");
    let name = "model.diffusion_model.input_blocks.0.0.weight";
    let weight = dict.get(name).unwrap();
    let (rows, inner) = (weight.dims()[0], 9);
    // Mask and masked picture are five more channels.
    let values: Vec<f32> = weight
        .to_f32()
        .chunks(4 * inner)
        .flat_map(|row| row.iter().copied().chain((0..5 * inner).map(|i| (i as f32).sin() * 0.05)))
        .collect();
    dict.insert(name, halves(&values, &[rows, 9, 3, 3]));
    write(base.path(), "checkpoints/sdxl_inpaint.safetensors", &dict);
    three_ways(base.path(), &checkpoint("sdxl_inpaint"), slots("m"));
}
