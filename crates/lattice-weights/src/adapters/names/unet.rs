//! Diffusers' names of the Stable Diffusion U-Net: numbered blocks of the checkpoint, in order, are residual layers, attentions and
//! resamplers of a level, and a resampler ends its level.

use super::{KeyTable, Target};
use crate::StateDict;

pub(super) fn add(table: &mut KeyTable, weights: &StateDict) {
    for (path, own) in SINGLE {
        table.add(weights, path, Target::whole(format!("{own}.weight")));
    }
    let mut names = Names { table, weights };
    let (mut level, mut layer) = (0, 0);
    for block in 1..weights.root().at("input_blocks").count() {
        let own = format!("input_blocks.{block}");
        if weights.contains(&format!("{own}.0.op.weight")) {
            names.layer(&format!("{own}.0.op"), &format!("down_blocks.{level}.downsamplers.0.conv"));
            (level, layer) = (level + 1, 0);
            continue;
        }
        names.block(&own, &format!("down_blocks.{level}"), layer);
        layer += 1;
    }
    let middle = weights.root().at("middle_block").count();
    for index in 0..middle {
        let own = format!("middle_block.{index}");
        if weights.contains(&format!("{own}.in_layers.0.weight")) {
            names.residual(&own, &format!("mid_block.resnets.{}", index.div_ceil(2)));
        } else {
            names.attention(&own, &format!("mid_block.attentions.{}", index / 2));
        }
    }
    (level, layer) = (0, 0);
    for block in 0..weights.root().at("output_blocks").count() {
        let own = format!("output_blocks.{block}");
        names.block(&own, &format!("up_blocks.{level}"), layer);
        layer += 1;
        let upsampler = [1, 2].into_iter().find(|i| weights.contains(&format!("{own}.{i}.conv.weight")));
        if let Some(index) = upsampler {
            names.layer(&format!("{own}.{index}.conv"), &format!("up_blocks.{level}.upsamplers.0.conv"));
            (level, layer) = (level + 1, 0);
        }
    }
}

struct Names<'a> {
    table: &'a mut KeyTable,
    weights: &'a StateDict,
}

impl Names<'_> {
    fn layer(&mut self, own: &str, path: &str) {
        self.table.add(self.weights, path, Target::whole(format!("{own}.weight")));
    }

    /// A residual layer and, if there is one, the attention after it.
    fn block(&mut self, own: &str, path: &str, layer: usize) {
        self.residual(&format!("{own}.0"), &format!("{path}.resnets.{layer}"));
        self.attention(&format!("{own}.1"), &format!("{path}.attentions.{layer}"));
    }

    fn residual(&mut self, own: &str, path: &str) {
        for (theirs, ours) in RESIDUAL {
            self.layer(&format!("{own}.{ours}"), &format!("{path}.{theirs}"));
        }
    }

    /// Inside an attention the names are the same.
    fn attention(&mut self, own: &str, path: &str) {
        let prefix = format!("{own}.");
        let inner: Vec<String> = self
            .weights
            .iter()
            .filter_map(|(name, _)| name.strip_prefix(&prefix)?.strip_suffix(".weight").map(str::to_owned))
            .filter(|name| name != "conv")
            .collect();
        for name in inner {
            self.layer(&format!("{own}.{name}"), &format!("{path}.{name}"));
        }
    }
}

const RESIDUAL: [(&str, &str); 6] = [
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
];

const SINGLE: [(&str, &str); 9] = [
    ("conv_in", "input_blocks.0.0"),
    ("conv_norm_out", "out.0"),
    ("conv_out", "out.2"),
    ("time_embedding.linear_1", "time_embed.0"),
    ("time_embedding.linear_2", "time_embed.2"),
    ("class_embedding.linear_1", "label_emb.0.0"),
    ("class_embedding.linear_2", "label_emb.0.2"),
    ("add_embedding.linear_1", "label_emb.0.0"),
    ("add_embedding.linear_2", "label_emb.0.2"),
];
