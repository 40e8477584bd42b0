//! Pictures while sampling, and the tiny autoencoders that make them.

use std::path::Path;

use serde_json::{Value as Json, json};

use crate::common::{lattice, make, picture, write_model};
use crate::families::{checkpoint, slots, text_to_image};

/// The previews of a run with a method, as they are printed.
fn previews(base: &Path, method: &str) -> Vec<Json> {
    let prompt = text_to_image(checkpoint("sd15"), slots("m"));
    std::fs::write(base.join("prompt.json"), prompt.to_string()).unwrap();
    let output = lattice(base, &["run", "prompt.json", "--json", "--preview-method", method]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    let events = printed.lines().map(|line| serde_json::from_str::<Json>(line).unwrap());
    events.filter_map(|event| event.get("preview").cloned()).collect()
}

#[test]
fn previews_are_decoded_where_a_decoder_is() {
    let base = tempfile::tempdir().unwrap();
    make(base.path(), "sd15", "checkpoints");
    assert!(previews(base.path(), "none").is_empty());
    let linear = previews(base.path(), "latent2rgb");
    assert_eq!(linear.len(), 2, "one per step");
    assert!(linear.iter().all(|picture| picture["mime"] == "image/jpeg"));
    for method in ["auto", "taesd"] {
        assert_eq!(previews(base.path(), method), linear, "{method} without a decoder");
    }

    write_model(base.path(), "taesd_decoder", "taesd_decoder", "vae_approx", 0);
    let decoded = previews(base.path(), "taesd");
    assert_eq!(decoded.len(), 2);
    assert_ne!(decoded, linear);
    assert_eq!(previews(base.path(), "auto"), decoded);
    assert_eq!(previews(base.path(), "latent2rgb"), linear);

    std::fs::write(base.path().join("models/vae_approx/taesd_decoder.safetensors"), "broken").unwrap();
    assert_eq!(previews(base.path(), "taesd"), linear, "a broken decoder does not stop the run");
}

#[test]
fn tiny_autoencoders_stand_in_for_a_vae() {
    let base = tempfile::tempdir().unwrap();
    make(base.path(), "sd15", "checkpoints");
    write_model(base.path(), "taesd_decoder", "taesd_decoder", "vae_approx", 0);
    let choices = || {
        let printed = lattice(base.path(), &["nodes", "VAELoader"]).stdout;
        String::from_utf8(printed).unwrap()
    };
    assert!(!choices().contains("taesd"), "half of one is none");
    write_model(base.path(), "taesd_encoder", "taesd_encoder", "vae_approx", 0);
    assert!(choices().contains("taesd"));

    let prompt = text_to_image(checkpoint("sd15"), slots("m"));
    let mut tiny = text_to_image(checkpoint("sd15"), [json!(["m", 0]), json!(["m", 1]), json!(["t", 0])]);
    tiny["t"] = json!({"class_type": "VAELoader", "inputs": {"vae_name": "taesd"}});
    let (width, height, decoded) = picture(base.path(), &tiny);
    assert_eq!((width, height), (64, 96));
    assert_ne!(decoded, picture(base.path(), &prompt).2);
    tiny["e"] = json!({"class_type": "VAEEncode", "inputs": {"pixels": ["d2", 0], "vae": ["t", 0]}});
    tiny["d2"] = json!({"class_type": "EmptyImage", "inputs": {
        "width": 64, "height": 96, "batch_size": 1, "color": 0x80_4020}});
    tiny["k"]["inputs"]["denoise"] = json!(0.5);
    assert_ne!(picture(base.path(), &tiny).2, decoded, "the encoder is the other half");
}
