//! Diffusers' names of the transformers of Stable Diffusion 3 and Flux, where separate projections there are rows of one tensor here.

use super::{KeyTable, Slice, Target};
use crate::StateDict;

/// Adds diffusers' names if the network is one of these two; others have their own names only.
pub(super) fn add(table: &mut KeyTable, weights: &StateDict) {
    let mut names = Names { table, weights };
    if weights.contains("joint_blocks.0.x_block.attn.qkv.weight") {
        names.stable_diffusion_3();
    } else if weights.contains("double_blocks.0.img_attn.qkv.weight") {
        names.flux();
    }
}

struct Names<'a> {
    table: &'a mut KeyTable,
    weights: &'a StateDict,
}

impl Names<'_> {
    fn same(&mut self, path: &str, own: &str) {
        self.table.add(self.weights, path, Target::whole(own.to_owned()));
    }

    fn layer(&mut self, path: &str, own: &str) {
        self.same(path, &format!("{own}.weight"));
    }

    fn swapped(&mut self, path: &str, own: &str) {
        let target = Target { swap_halves: true, ..Target::whole(format!("{own}.weight")) };
        self.table.add(self.weights, path, target);
    }

    fn rows(&self, own: &str) -> usize {
        self.weights.get(&format!("{own}.weight")).and_then(|w| w.dims().first().copied()).unwrap_or(0)
    }

    fn part(&mut self, path: &str, own: &str, start: usize, length: usize) {
        let slice = Some(Slice { axis: 0, start, length });
        self.table.add(self.weights, path, Target { slice, ..Target::whole(format!("{own}.weight")) });
    }

    /// Query, key and value as thirds of one tensor.
    fn thirds(&mut self, path: &str, names: [&str; 3], own: &str) {
        let third = self.rows(own) / 3;
        for (i, name) in names.into_iter().enumerate() {
            self.part(&format!("{path}.{name}"), own, i * third, third);
        }
    }

    fn stable_diffusion_3(&mut self) {
        for (path, own) in [
            ("context_embedder", "context_embedder"),
            ("pos_embed.proj", "x_embedder.proj"),
            ("proj_out", "final_layer.linear"),
            ("time_text_embed.text_embedder.linear_1", "y_embedder.mlp.0"),
            ("time_text_embed.text_embedder.linear_2", "y_embedder.mlp.2"),
            ("time_text_embed.timestep_embedder.linear_1", "t_embedder.mlp.0"),
            ("time_text_embed.timestep_embedder.linear_2", "t_embedder.mlp.2"),
        ] {
            self.layer(path, own);
        }
        self.swapped("norm_out.linear", "final_layer.adaLN_modulation.1");
        let depth = self.weights.root().at("joint_blocks").count();
        for block in 0..depth {
            let (path, own) = (format!("transformer_blocks.{block}"), format!("joint_blocks.{block}"));
            for attention in ["attn", "attn2"] {
                let own = format!("{own}.x_block.{attention}");
                self.thirds(&format!("{path}.{attention}"), ["to_q", "to_k", "to_v"], &format!("{own}.qkv"));
                self.layer(&format!("{path}.{attention}.norm_q"), &format!("{own}.ln_q"));
                self.layer(&format!("{path}.{attention}.norm_k"), &format!("{own}.ln_k"));
                self.layer(&format!("{path}.{attention}.to_out.0"), &format!("{own}.proj"));
            }
            let context = format!("{own}.context_block.attn");
            let added = ["add_q_proj", "add_k_proj", "add_v_proj"];
            self.thirds(&format!("{path}.attn"), added, &format!("{context}.qkv"));
            self.layer(&format!("{path}.attn.norm_added_q"), &format!("{context}.ln_q"));
            self.layer(&format!("{path}.attn.norm_added_k"), &format!("{context}.ln_k"));
            self.layer(&format!("{path}.attn.to_add_out"), &format!("{context}.proj"));
            for (theirs, ours) in [("ff", "x_block"), ("ff_context", "context_block")] {
                self.layer(&format!("{path}.{theirs}.net.0.proj"), &format!("{own}.{ours}.mlp.fc1"));
                self.layer(&format!("{path}.{theirs}.net.2"), &format!("{own}.{ours}.mlp.fc2"));
            }
            self.layer(&format!("{path}.norm1.linear"), &format!("{own}.x_block.adaLN_modulation.1"));
            let context = format!("{own}.context_block.adaLN_modulation.1");
            // The last block only normalises its context: a scale and a shift, in the other order.
            if block + 1 == depth {
                self.swapped(&format!("{path}.norm1_context.linear"), &context);
            } else {
                self.layer(&format!("{path}.norm1_context.linear"), &context);
            }
        }
    }

    fn flux(&mut self) {
        for (path, own) in [
            ("context_embedder", "txt_in"),
            ("x_embedder", "img_in"),
            ("controlnet_x_embedder", "pos_embed_input"),
            ("proj_out", "final_layer.linear"),
            ("time_text_embed.guidance_embedder.linear_1", "guidance_in.in_layer"),
            ("time_text_embed.guidance_embedder.linear_2", "guidance_in.out_layer"),
            ("time_text_embed.text_embedder.linear_1", "vector_in.in_layer"),
            ("time_text_embed.text_embedder.linear_2", "vector_in.out_layer"),
            ("time_text_embed.timestep_embedder.linear_1", "time_in.in_layer"),
            ("time_text_embed.timestep_embedder.linear_2", "time_in.out_layer"),
        ] {
            self.layer(path, own);
        }
        self.swapped("norm_out.linear", "final_layer.adaLN_modulation.1");
        for block in 0..self.weights.root().at("double_blocks").count() {
            let (path, own) = (format!("transformer_blocks.{block}"), format!("double_blocks.{block}"));
            for (stream, projections, norms, out, ff, modulation) in [
                ("img", ["to_q", "to_k", "to_v"], ["norm_q", "norm_k"], "to_out.0", "ff", "norm1"),
                (
                    "txt",
                    ["add_q_proj", "add_k_proj", "add_v_proj"],
                    ["norm_added_q", "norm_added_k"],
                    "to_add_out",
                    "ff_context",
                    "norm1_context",
                ),
            ] {
                let attention = format!("{own}.{stream}_attn");
                self.thirds(&format!("{path}.attn"), projections, &format!("{attention}.qkv"));
                self.same(
                    &format!("{path}.attn.{}", norms[0]),
                    &format!("{attention}.norm.query_norm.scale"),
                );
                self.same(&format!("{path}.attn.{}", norms[1]), &format!("{attention}.norm.key_norm.scale"));
                self.layer(&format!("{path}.attn.{out}"), &format!("{attention}.proj"));
                self.layer(&format!("{path}.{ff}.net.0.proj"), &format!("{own}.{stream}_mlp.0"));
                self.layer(&format!("{path}.{ff}.net.2"), &format!("{own}.{stream}_mlp.2"));
                self.layer(&format!("{path}.{modulation}.linear"), &format!("{own}.{stream}_mod.lin"));
            }
        }
        for block in 0..self.weights.root().at("single_blocks").count() {
            let (path, own) =
                (format!("single_transformer_blocks.{block}"), format!("single_blocks.{block}"));
            let linear = format!("{own}.linear1");
            // Rows: query, key, value of the hidden width each, then the first layer of the MLP.
            let (rows, hidden) = (self.rows(&linear), self.rows(&format!("{own}.linear2")));
            for (i, name) in ["to_q", "to_k", "to_v"].into_iter().enumerate() {
                self.part(&format!("{path}.attn.{name}"), &linear, i * hidden, hidden);
            }
            self.part(&format!("{path}.proj_mlp"), &linear, 3 * hidden, rows.saturating_sub(3 * hidden));
            self.part(&format!("{own}.linear1_qkv"), &linear, 0, 3 * hidden);
            self.layer(&format!("{path}.proj_out"), &format!("{own}.linear2"));
            self.layer(&format!("{path}.norm.linear"), &format!("{own}.modulation.lin"));
            self.same(&format!("{path}.attn.norm_q"), &format!("{own}.norm.query_norm.scale"));
            self.same(&format!("{path}.attn.norm_k"), &format!("{own}.norm.key_norm.scale"));
        }
    }
}
