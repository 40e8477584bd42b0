//! `AutoencoderKL`.

use super::plan::{Piece, Plan, count_children};

/// The plan for an autoencoder of these tensor names. Names that belong to no part of the network are left out.
pub fn autoencoder_kl<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Plan {
    // The single file counts the decoder's levels from the full resolution, the folder from the latent.
    let levels = count_children(names.clone(), "decoder.up_blocks");
    let mut plan = Plan::default();
    for name in names {
        let parts: Vec<&str> = name.split('.').collect();
        let target = match parts.as_slice() {
            ["quant_conv" | "post_quant_conv", _] => name.to_owned(),
            [half, "conv_in" | "conv_out", _] if is_half(half) => name.to_owned(),
            [half, "conv_norm_out", end] => format!("{half}.norm_out.{end}"),
            [half, "mid_block", "resnets", i, rest @ ..] => match (i.parse::<usize>(), resnet(rest)) {
                (Ok(i), Some(rest)) => format!("{half}.mid.block_{}.{rest}", i + 1),
                _ => continue,
            },
            [half, "mid_block", "attentions", "0", rest @ ..] => match attention(rest) {
                Some(rest) => format!("{half}.mid.attn_1.{rest}"),
                None => continue,
            },
            [half, blocks @ ("down_blocks" | "up_blocks"), level, kind, i, rest @ ..] => {
                let Ok(level) = level.parse::<usize>() else { continue };
                let place = match *blocks {
                    "down_blocks" => format!("{half}.down.{level}"),
                    _ => match levels.checked_sub(level + 1) {
                        Some(level) => format!("{half}.up.{level}"),
                        None => continue,
                    },
                };
                match (*kind, rest) {
                    ("resnets", rest) => match resnet(rest) {
                        Some(rest) => format!("{place}.block.{i}.{rest}"),
                        None => continue,
                    },
                    ("downsamplers", ["conv", end]) => format!("{place}.downsample.conv.{end}"),
                    ("upsamplers", ["conv", end]) => format!("{place}.upsample.conv.{end}"),
                    _ => continue,
                }
            }
            _ => continue,
        };
        plan.put(target, Piece::Copy(name.to_owned()));
    }
    plan
}

fn is_half(part: &str) -> bool {
    part == "encoder" || part == "decoder"
}

fn resnet(rest: &[&str]) -> Option<String> {
    match rest {
        ["conv_shortcut", end] => Some(format!("nin_shortcut.{end}")),
        [layer @ ("norm1" | "conv1" | "norm2" | "conv2"), end] => Some(format!("{layer}.{end}")),
        _ => None,
    }
}

/// The middle attention; older folders name its layers differently.
fn attention(rest: &[&str]) -> Option<String> {
    let (layer, end) = match rest {
        ["to_out", "0", end] => ("proj_out", end),
        [layer, end] => {
            let ours = match *layer {
                "group_norm" => "norm",
                "to_q" | "query" => "q",
                "to_k" | "key" => "k",
                "to_v" | "value" => "v",
                "proj_attn" => "proj_out",
                _ => return None,
            };
            (ours, end)
        }
        _ => return None,
    };
    Some(format!("{layer}.{end}"))
}
