//! Full-size layouts, as files with a hole of zeros for data, are recognised for what they are.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use lattice_goldens::synthetic::Manifest;
use lattice_models::detect::{DetectError, DiffusionPart, Family, TextEncoderKind, TextPart, VaePart};
use lattice_models::sd_unet::UnetConfig;
use lattice_models::{Checkpoint, Hints};
use lattice_weights::{StateDict, StoredDType};
use serde_json::Value as Json;

/// The layout of a manifest without its metadata, which a published file has not.
fn published(name: &str) -> (tempfile::TempDir, StateDict) {
    let manifest = Manifest::find(&Manifest::project_root(), name).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    manifest.write_sparse(&path, 0, StoredDType::F16).unwrap();
    let dict = lattice_weights::safetensors::open(&path).unwrap();
    let mut bare = StateDict::new(name, IndexMap::new(), BTreeMap::new());
    for (tensor, weight) in dict.iter() {
        bare.insert(tensor, weight.clone());
    }
    (folder, bare)
}

fn decisions() -> Json {
    let text = std::fs::read(Manifest::project_root().join("detection.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

#[test]
fn families_and_facts() {
    let decisions = decisions();
    let families = [
        ("sd15", Family::Sd1),
        ("sd15_inpaint", Family::Sd1),
        ("sd21", Family::Sd2),
        ("sdxl", Family::Sdxl),
        ("sdxl_refiner", Family::SdxlRefiner),
        ("sd3_medium", Family::Sd3),
        ("sd35_medium", Family::Sd3),
        ("sd35_large", Family::Sd3),
        ("flux_dev", Family::Flux),
        ("flux_schnell", Family::FluxSchnell),
    ];
    for (name, family) in families {
        let (_folder, dict) = published(name);
        let part = DiffusionPart::load(&dict).unwrap_or_else(|e| panic!("{name}: {e}"));
        let wanted = &decisions["manifests"][name];
        assert_eq!(part.spec.family, family, "{name}");
        assert_eq!(part.spec.latent_format.name(), wanted["latent_format"], "{name}");
        assert_eq!(part.spec.memory_factor, wanted["memory_usage_factor"].as_f64().unwrap(), "{name}");
        // The decisions give the picture's channels of Flux and SD3, and all input channels of U-Nets.
        assert_eq!(Json::from(part.spec.in_channels), wanted["config"]["in_channels"], "{name}");
        assert_eq!(Json::from(part.spec.out_channels), wanted["config"]["out_channels"], "{name}");
    }
}

#[test]
fn unet_structure() {
    let decisions = decisions();
    for name in ["sd15", "sd15_inpaint", "sd21", "sdxl", "sdxl_refiner"] {
        let (_folder, dict) = published(name);
        let scope = dict.root().at("model.diffusion_model");
        let config = UnetConfig::read(&scope, &Hints::default()).unwrap();
        let wanted = &decisions["manifests"][name]["config"];
        assert_eq!(Json::from(config.model_channels), wanted["model_channels"], "{name}");
        assert_eq!(Json::from(config.channel_mult), wanted["channel_mult"], "{name}");
        assert_eq!(Json::from(config.num_res_blocks), wanted["num_res_blocks"], "{name}");
        assert_eq!(Json::from(config.transformer_depth), wanted["transformer_depth"], "{name}");
        assert_eq!(Json::from(config.transformer_depth_output), wanted["transformer_depth_output"], "{name}");
        let middle = config.transformer_depth_middle;
        assert_eq!(Json::from(middle), wanted["transformer_depth_middle"], "{name}");
        assert_eq!(Json::from(config.context_width), wanted["context_dim"], "{name}");
        assert_eq!(Json::from(config.added_width), wanted["adm_in_channels"], "{name}");
        assert_eq!(Json::from(config.linear_projection), wanted["use_linear_in_transformer"], "{name}");
    }
}

#[test]
fn parts_of_checkpoints() {
    use TextEncoderKind::{ClipG, ClipH, ClipL};
    for (name, encoders) in [
        ("sd15", vec![ClipL]),
        ("sd21", vec![ClipH]),
        ("sdxl", vec![ClipL, ClipG]),
        ("sdxl_refiner", vec![ClipG]),
        ("sd3_medium_incl_clips", vec![ClipL, ClipG]),
        ("sd3_medium", vec![]),
    ] {
        let (_folder, dict) = published(name);
        let checkpoint = Checkpoint::load(&dict).unwrap_or_else(|e| panic!("{name}: {e}"));
        let kinds: Vec<_> = checkpoint.text_encoders.iter().map(|part| part.kind).collect();
        assert_eq!(kinds, encoders, "{name}");
        let vae = checkpoint.vae.expect("every one of these has a VAE");
        assert_eq!(vae.vae.latent_channels(), if name.starts_with("sd3") { 16 } else { 4 }, "{name}");
        assert_eq!(vae.vae.spatial_factor(), 8, "{name}");
    }
}

#[test]
fn text_encoders_alone() {
    use TextEncoderKind::{ClipG, ClipH, ClipL, T5Xxl, Umt5Xxl};
    for (name, kind) in [
        ("te_clip_l", ClipL),
        ("te_clip_h", ClipH),
        ("te_clip_g", ClipG),
        ("te_openclip_h", ClipH),
        ("te_openclip_g", ClipG),
        ("te_t5xxl", T5Xxl),
        ("te_umt5xxl", Umt5Xxl),
    ] {
        let (_folder, dict) = published(name);
        let part = TextPart::load(&dict).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(part.kind, kind, "{name}");
    }
}

#[test]
fn files_of_another_kind_are_named() {
    let (_folder, dict) = published("te_clip_l");
    let error = DiffusionPart::load(&dict).err().expect("no diffusion model");
    assert!(matches!(error, DetectError::Unknown { .. }));
    assert!(error.to_string().contains("text encoder"), "{error}");
    let error = VaePart::load(&dict).err().expect("no VAE");
    assert!(error.to_string().contains("VAE"), "{error}");
}

/// Every tensor of a checkpoint in turn is left out, or replaced by one of another shape: the file is refused with a message that
/// names the tensor, or (a tensor that nothing needs) loaded.
#[test]
fn broken_checkpoints_are_refused() {
    let manifest = Manifest::find(&Manifest::project_root(), "tiny/sd15").unwrap();
    let whole = manifest.state_dict(0, StoredDType::F16).unwrap();
    let names: Vec<String> = whole.iter().map(|(name, _)| name.to_owned()).collect();
    let mut refused = 0;
    // Every seventh tensor meets every kind of layer and keeps the test short.
    for name in names.iter().filter(|n| n.starts_with("model.diffusion_model.")).step_by(7) {
        let mut without = StateDict::new("broken", IndexMap::new(), whole.metadata().clone());
        for (tensor, weight) in whole.iter().filter(|(tensor, _)| tensor != name) {
            without.insert(tensor, weight.clone());
        }
        if let Err(error) = DiffusionPart::load(&without) {
            refused += 1;
            let text = error.to_string();
            assert!(text.contains("broken"), "{text}");
        }
        let mut odd = whole.clone();
        odd.insert(name.clone(), lattice_weights::Weight::from_f32(vec![], (0, 3)).unwrap());
        let error = DiffusionPart::load(&odd).err().unwrap_or_else(|| panic!("an empty {name} was accepted"));
        assert!(error.to_string().contains("tensor") || error.to_string().contains('`'), "{name}: {error}");
    }
    assert!(refused > 80, "only {refused} missing tensors were noticed");
}
