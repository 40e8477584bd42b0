//! The rules for module names against the published tables (`testdata/lora_keys`), and whole adapter files of every layout.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

use bytes::Bytes;
use indexmap::IndexMap;
use lattice_weights::adapters::{AdapterFile, KeyTable, Slice, Target};
use lattice_weights::{StateDict, StoredDType, Weight};
use serde_json::Value;

fn testdata(path: &str) -> Value {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata");
    let plain = root.join(format!("{path}.json"));
    if plain.exists() {
        return serde_json::from_slice(&std::fs::read(plain).unwrap()).unwrap();
    }
    let packed = std::fs::read(root.join(format!("{path}.json.gz"))).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Bytes that are not there: full-size shapes without their memory (never read).
struct Nothing(usize);

impl AsRef<[u8]> for Nothing {
    fn as_ref(&self) -> &[u8] {
        static ZEROS: [u8; 1 << 20] = [0; 1 << 20];
        &ZEROS[..self.0]
    }
}

/// A dict of a manifest's tensors below a prefix. Only leading sizes matter for names, so the others become 1.
fn manifest(name: &str, prefix: &str) -> StateDict {
    let json = testdata(&format!("manifests/{name}"));
    let mut tensors = IndexMap::new();
    for (name, shape) in json["tensors"].as_object().unwrap() {
        let Some(name) = name.strip_prefix(prefix) else { continue };
        let shape: Vec<usize> =
            shape.as_array().unwrap().iter().map(|d| d.as_u64().unwrap() as usize).collect();
        let shape: Vec<usize> = shape.iter().enumerate().map(|(i, &d)| if i == 0 { d } else { 1 }).collect();
        let bytes = Bytes::from_owner(Nothing(shape.iter().product()));
        tensors.insert(name.to_owned(), Weight::new(StoredDType::U8, shape, bytes, None).unwrap());
    }
    assert!(!tensors.is_empty(), "{name} has nothing below {prefix}");
    StateDict::new(name, tensors, BTreeMap::new())
}

fn wanted(value: &Value, prefix: &str) -> Option<Target> {
    let key = value.as_str().or_else(|| value["key"].as_str()).unwrap();
    let slice = value["slice"].as_array().map(|list| {
        let n: Vec<usize> = list.iter().map(|v| v.as_u64().unwrap() as usize).collect();
        Slice { axis: n[0], start: n[1], length: n[2] }
    });
    let swap_halves = value["swap_scale_shift"].as_bool() == Some(true);
    Some(Target { tensor: key.strip_prefix(prefix)?.to_owned(), slice, swap_halves })
}

/// Every name of the published table whose parameter the model has must mean that parameter.
fn compare(keys: &str, table: &KeyTable, weights: &StateDict, prefix: &str) {
    let mut checked = 0;
    for (name, value) in testdata(&format!("lora_keys/{keys}")).as_object().unwrap() {
        let Some(target) = wanted(value, prefix).filter(|t| weights.contains(&t.tensor)) else { continue };
        assert_eq!(table.find(name), Some(&target), "{keys}: {name}");
        checked += 1;
    }
    assert!(checked > 50, "{keys}: only {checked} names compared");
}

#[test]
fn networks_have_the_published_names() {
    for (keys, name, prefix) in [
        ("sd15_unet", "sd15", "model.diffusion_model."),
        ("sdxl_unet", "sdxl", "model.diffusion_model."),
        ("sd3_medium_unet", "sd3_medium", "model.diffusion_model."),
        ("flux_dev_unet", "flux_dev", ""),
    ] {
        let weights = manifest(name, prefix);
        compare(keys, &KeyTable::network(&weights), &weights, "diffusion_model.");
    }
}

#[test]
fn text_encoders_have_the_published_names() {
    for (keys, towers) in [
        ("sd15_text", &["clip_l"][..]),
        ("sd2_text", &["clip_h"]),
        ("sdxl_text", &["clip_l", "clip_g"]),
        ("sd3_text", &["clip_l", "clip_g", "t5xxl"]),
        ("flux_text", &["clip_l", "t5xxl"]),
    ] {
        for tower in towers {
            let weights = manifest(&format!("te_{tower}"), "");
            let table = KeyTable::text_encoder(tower, towers, &weights);
            compare(keys, &table, &weights, &format!("{tower}.transformer."));
        }
    }
}

/// Files in the styles the tables leave out are loaded whole too.
#[test]
fn every_style_of_file_is_loaded_whole() {
    let cases: [(&str, &str, &str, &[(&str, &str)]); 18] = [
        ("lora_sd15_kohya", "tiny/sd15", "model.diffusion_model.", SD15),
        ("lora_sd15_diff_old", "tiny/sd15", "model.diffusion_model.", SD15),
        ("lora_sd15_diffusers", "tiny/sd15", "model.diffusion_model.", SD15),
        ("lora_sd15_peft", "tiny/sd15", "model.diffusion_model.", SD15),
        ("lora_sdxl_kohya", "tiny/sdxl", "model.diffusion_model.", SDXL),
        ("lora_sdxl_diffusers", "tiny/sdxl", "model.diffusion_model.", SDXL),
        ("lora_sdxl_peft", "tiny/sdxl", "model.diffusion_model.", SDXL),
        ("lora_flux_kohya", "tiny/flux_dev", "", FLUX),
        ("lora_flux_diffusers", "tiny/flux_dev", "", FLUX),
        ("lora_flux_peft", "tiny/flux_dev", "", FLUX),
        ("lyco_sd15_locon", "tiny/sd15", "model.diffusion_model.", SD15),
        ("lyco_sd15_loha", "tiny/sd15", "model.diffusion_model.", SD15),
        ("lyco_sd15_lokr", "tiny/sd15", "model.diffusion_model.", SD15),
        ("lyco_sd15_oft", "tiny/sd15", "model.diffusion_model.", SD15),
        ("lyco_sd15_boft", "tiny/sd15", "model.diffusion_model.", SD15),
        ("lyco_sd15_glora", "tiny/sd15", "model.diffusion_model.", SD15),
        ("lyco_sd15_diff", "tiny/sd15", "model.diffusion_model.", SD15),
        ("lyco_sd15_dora", "tiny/sd15", "model.diffusion_model.", SD15),
    ];
    for (lora, model, prefix, towers) in cases {
        let mut tables = vec![KeyTable::network(&manifest(model, prefix))];
        let names: Vec<&str> = towers.iter().map(|(kind, _)| *kind).collect();
        for (kind, tower) in towers {
            tables.push(KeyTable::text_encoder(kind, &names, &manifest(tower, "")));
        }
        let dict = manifest(&format!("tiny/{lora}"), "");
        let file = AdapterFile::new(&dict);
        let tables: Vec<&KeyTable> = tables.iter().collect();
        let unmatched = file.unmatched(&tables);
        assert!(unmatched.names.is_empty(), "{lora}: {:?}", unmatched.names);
        assert_eq!((file.loaded_tensors(&tables), unmatched.matched), (dict.len(), file.len()), "{lora}");
    }
}

const SD15: &[(&str, &str)] = &[("clip_l", "tiny/te_clip_l")];
const SDXL: &[(&str, &str)] = &[("clip_l", "tiny/te_clip_l"), ("clip_g", "tiny/te_clip_g")];

const FLUX: &[(&str, &str)] = &[("clip_l", "tiny/te_clip_l"), ("t5xxl", "tiny/te_t5xxl")];

/// OneTrainer's files: the checkpoint's own modules with dots or with underscores under `unet`/`transformer` and the encoders' prefixes, DoRA magnitudes
/// among them; and those that it writes with bundled embeddings, which are no modules.
#[test]
fn onetrainer_files_are_loaded_whole() {
    let network = KeyTable::network(&manifest("tiny/sdxl", "model.diffusion_model."));
    let flux = KeyTable::network(&manifest("tiny/flux_dev", ""));
    let sd3 = KeyTable::network(&manifest("tiny/sd3_medium", "model.diffusion_model."));
    let encoders = ["clip_l", "clip_g"];
    let texts = encoders
        .map(|kind| KeyTable::text_encoder(kind, &encoders, &manifest(&format!("tiny/te_{kind}"), "")));
    let q = "text_model.encoder.layers.0.self_attn.q_proj";
    let one = |modules: &[(&str, &str, &KeyTable)]| {
        let mut tensors = IndexMap::new();
        for (module, ..) in modules {
            for suffix in ["lora_up.weight", "lora_down.weight", "alpha", "dora_scale"] {
                let weight = Weight::from_f32(vec![1.0], 1).unwrap();
                tensors.insert(format!("{module}.{suffix}"), weight);
            }
        }
        let file = AdapterFile::new(&StateDict::new("onetrainer", tensors, BTreeMap::new()));
        assert_eq!(file.len(), modules.len());
        for (module, tensor, table) in modules {
            let found = table.find(module).unwrap_or_else(|| panic!("{module} is not known"));
            assert_eq!(found.tensor, *tensor, "{module}");
        }
        let tables: Vec<&KeyTable> = modules.iter().map(|(.., table)| *table).collect();
        assert_eq!(file.unmatched(&tables).names, Vec::<String>::new());
    };
    let attention = "transformer_blocks.0.attn1.to_q";
    let own = format!("input_blocks.4.1.{attention}.weight");
    one(&[
        (&format!("lora_unet_down_blocks_1_attentions_0_{}", attention.replace('.', "_")), &own, &network),
        (&format!("lora_te1_{}", q.replace('.', "_")), &format!("{q}.weight"), &texts[0]),
        (&format!("lora_te2_{}", q.replace('.', "_")), &format!("{q}.weight"), &texts[1]),
    ]);
    one(&[
        (&format!("unet.down_blocks.1.attentions.0.{attention}"), &own, &network),
        (&format!("lora_te1.{q}"), &format!("{q}.weight"), &texts[0]),
        (&format!("lora_te2.{q}"), &format!("{q}.weight"), &texts[1]),
    ]);
    one(&[
        ("lora_transformer_transformer_blocks_0_attn_to_q", "double_blocks.0.img_attn.qkv.weight", &flux),
        ("transformer.transformer_blocks.0.ff.net.0.proj", "double_blocks.0.img_mlp.0.weight", &flux),
        ("lora_transformer.single_transformer_blocks.0.proj_out", "single_blocks.0.linear2.weight", &flux),
    ]);
    one(&[(
        "lora_transformer_transformer_blocks_0_attn_to_q",
        "joint_blocks.0.x_block.attn.qkv.weight",
        &sd3,
    )]);
}

#[test]
fn modules_of_another_model_are_reported() {
    let table = KeyTable::network(&manifest("tiny/flux_dev", ""));
    let file = AdapterFile::new(&manifest("tiny/lora_sd15_kohya", ""));
    let unmatched = file.unmatched(&[&table]);
    assert_eq!((unmatched.names.len(), unmatched.matched), (file.len(), 0));
    assert!(file.patches(&table).is_empty());
}
