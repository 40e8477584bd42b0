//! `UNet2DConditionModel`.

use super::plan::{Piece, Plan, count_children};

/// The plan for a U-Net of these tensor names. Names that belong to no part of the network are left out.
pub fn unet<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Plan {
    // Each level has as many residual blocks as the first; one entry more holds the change of resolution.
    let blocks = count_children(names.clone(), "down_blocks.0.resnets");
    let mut plan = Plan::default();
    for name in names.clone() {
        let parts: Vec<&str> = name.split('.').collect();
        let target = match parts.as_slice() {
            ["conv_in", end] => format!("input_blocks.0.0.{end}"),
            ["conv_norm_out", end] => format!("out.0.{end}"),
            ["conv_out", end] => format!("out.2.{end}"),
            ["time_embedding", "linear_1", end] => format!("time_embed.0.{end}"),
            ["time_embedding", "linear_2", end] => format!("time_embed.2.{end}"),
            ["add_embedding", "linear_1", end] => format!("label_emb.0.0.{end}"),
            ["add_embedding", "linear_2", end] => format!("label_emb.0.2.{end}"),
            ["mid_block", "resnets", i, rest @ ..] => match (*i, resnet(rest)) {
                ("0", Some(rest)) => format!("middle_block.0.{rest}"),
                ("1", Some(rest)) => format!("middle_block.2.{rest}"),
                _ => continue,
            },
            ["mid_block", "attentions", "0", rest @ ..] => format!("middle_block.1.{}", rest.join(".")),
            [side @ ("down_blocks" | "up_blocks"), level, kind, i, rest @ ..] => {
                let (Ok(level), Ok(i)) = (level.parse::<usize>(), i.parse::<usize>()) else { continue };
                let (stem, first) = match *side {
                    "down_blocks" => ("input_blocks", 1 + level * (blocks + 1)),
                    _ => ("output_blocks", level * (blocks + 1)),
                };
                match (*kind, rest) {
                    ("resnets", rest) => match resnet(rest) {
                        Some(rest) => format!("{stem}.{}.0.{rest}", first + i),
                        None => continue,
                    },
                    ("attentions", rest) => format!("{stem}.{}.1.{}", first + i, rest.join(".")),
                    ("downsamplers", ["conv", end]) => format!("{stem}.{}.0.op.{end}", first + blocks),
                    ("upsamplers", ["conv", end]) => {
                        let attention = format!("up_blocks.{level}.attentions.");
                        let place = if names.clone().any(|n| n.starts_with(&attention)) { 2 } else { 1 };
                        format!("{stem}.{}.{place}.conv.{end}", first + blocks)
                    }
                    _ => continue,
                }
            }
            _ => continue,
        };
        plan.put(target, Piece::Copy(name.to_owned()));
    }
    plan
}

/// A residual block's layers.
fn resnet(rest: &[&str]) -> Option<String> {
    let [layer, end] = rest else { return None };
    let layer = match *layer {
        "norm1" => "in_layers.0",
        "conv1" => "in_layers.2",
        "time_emb_proj" => "emb_layers.1",
        "norm2" => "out_layers.0",
        "conv2" => "out_layers.3",
        "conv_shortcut" => "skip_connection",
        _ => return None,
    };
    Some(format!("{layer}.{end}"))
}

/// The plan for a `ControlNetModel` of these tensor names.
pub fn controlnet<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Plan {
    let mut plan = unet(names.clone());
    for name in names {
        let parts: Vec<&str> = name.split('.').collect();
        let target = match parts.as_slice() {
            ["controlnet_cond_embedding", "conv_in", end] => format!("input_hint_block.0.{end}"),
            ["controlnet_cond_embedding", "blocks", i, end] => match i.parse::<usize>() {
                Ok(i) => format!("input_hint_block.{}.{end}", 2 + 2 * i),
                Err(_) => continue,
            },
            ["controlnet_cond_embedding", "conv_out", end] => format!("input_hint_block.14.{end}"),
            ["controlnet_down_blocks", i, end] => format!("zero_convs.{i}.0.{end}"),
            ["controlnet_mid_block", end] => format!("middle_block_out.0.{end}"),
            _ => continue,
        };
        plan.put(target, Piece::Copy(name.to_owned()));
    }
    plan
}
