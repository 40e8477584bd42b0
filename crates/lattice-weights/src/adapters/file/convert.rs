//! Layouts that rename the whole file: brought to the common one first.

use bytes::Bytes;
use lattice_kernels::{StoredDType, Weight};

use crate::StateDict;

/// The file in the common layout; most files are in it already.
pub(super) fn to_common_layout(dict: &StateDict) -> StateDict {
    if dict.contains("img_in.lora_A.weight") && dict.contains("single_blocks.0.norm.key_norm.scale") {
        flux_control(dict)
    } else if dict.iter().any(|(name, _)| name.starts_with("lora_unet__")) {
        renamed(dict, |name| match name.strip_prefix("lora_unet__") {
            Some(rest) => format!("lora_unet_{rest}"),
            None => name.to_owned(),
        })
    } else if dict
        .iter()
        .any(|(name, _)| name.contains(".processor.") && USO.iter().any(|(n, _)| name.contains(n)))
    {
        renamed(dict, uso)
    } else {
        dict.clone()
    }
}

fn renamed(dict: &StateDict, rename: impl Fn(&str) -> String) -> StateDict {
    let tensors = dict.iter().map(|(name, weight)| (rename(name), weight.clone())).collect();
    StateDict::new(dict.source(), tensors, dict.metadata().clone())
}

/// Control LoRAs of Black Forest Labs: LoRA pairs, biases and whole norms for every layer of Flux, and a wider input layer.
fn flux_control(dict: &StateDict) -> StateDict {
    let mut out = renamed(dict, |name| {
        let name = match name.strip_suffix(".lora_B.bias") {
            Some(module) => format!("{module}.diff_b"),
            None if name.ends_with("_norm.scale") => format!("{name}.set_weight"),
            None => name.to_owned(),
        };
        format!("diffusion_model.{name}")
    });
    let rows = dict.get("img_in.lora_B.weight").and_then(|w| w.dims().first().copied());
    let columns = dict.get("img_in.lora_A.weight").and_then(|w| w.dims().get(1).copied());
    if let Some((rows, columns)) = rows.zip(columns) {
        let shape: Vec<u8> = [rows, columns].iter().flat_map(|&n| (n as i64).to_le_bytes()).collect();
        if let Ok(weight) = Weight::new(StoredDType::I64, 2, Bytes::from(shape), None) {
            out.insert("diffusion_model.img_in.reshape_weight", weight);
        }
    }
    out
}

/// Names of attention processors' layers in USO files, and where they belong in Flux.
const USO: [(&str, &str); 6] = [
    (".qkv_lora1", ".img_attn.qkv"),
    (".qkv_lora2", ".txt_attn.qkv"),
    (".proj_lora1", ".img_attn.proj"),
    (".proj_lora2", ".txt_attn.proj"),
    (".qkv_lora", ".linear1_qkv"),
    (".proj_lora", ".linear2"),
];

fn uso(name: &str) -> String {
    let Some((block, layer)) = name.split_once(".processor.") else { return name.to_owned() };
    let layer = format!(".{layer}");
    let found = USO.iter().find_map(|(from, to)| Some((to, layer.strip_prefix(from)?)));
    match found {
        Some((to, rest)) => {
            let rest =
                rest.replace(".up.weight", ".lora_up.weight").replace(".down.weight", ".lora_down.weight");
            format!("diffusion_model.{block}{to}{rest}")
        }
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use indexmap::IndexMap;

    use super::*;

    fn dict(names: &[(&str, &[usize])]) -> StateDict {
        let tensors: IndexMap<String, Weight> = names
            .iter()
            .map(|(name, shape)| {
                let weight = Weight::from_f32(vec![0.0; shape.iter().product()], *shape).unwrap();
                ((*name).to_owned(), weight)
            })
            .collect();
        StateDict::new("test", tensors, BTreeMap::new())
    }

    #[test]
    fn control_loras_of_flux_widen_the_input() {
        let dict = dict(&[
            ("img_in.lora_A.weight", &[4, 128]),
            ("img_in.lora_B.weight", &[96, 4]),
            ("img_in.lora_B.bias", &[96]),
            ("single_blocks.0.norm.key_norm.scale", &[8]),
        ]);
        let out = to_common_layout(&dict);
        let names: Vec<&str> = out.iter().map(|(n, _)| n).collect();
        assert_eq!(
            names,
            [
                "diffusion_model.img_in.lora_A.weight",
                "diffusion_model.img_in.lora_B.weight",
                "diffusion_model.img_in.diff_b",
                "diffusion_model.single_blocks.0.norm.key_norm.scale.set_weight",
                "diffusion_model.img_in.reshape_weight",
            ]
        );
        assert_eq!(out.get("diffusion_model.img_in.reshape_weight").unwrap().to_f32(), [96.0, 128.0]);
    }

    #[test]
    fn processor_names_become_layers() {
        assert_eq!(
            uso("double_blocks.3.processor.qkv_lora2.down.weight"),
            "diffusion_model.double_blocks.3.txt_attn.qkv.lora_down.weight"
        );
        assert_eq!(
            uso("single_blocks.1.processor.proj_lora.up.weight"),
            "diffusion_model.single_blocks.1.linear2.lora_up.weight"
        );
    }
}
