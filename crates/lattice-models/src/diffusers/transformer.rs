//! `FluxTransformer2DModel` and `SD3Transformer2DModel`.

use std::collections::HashSet;

use super::plan::{Piece, Plan, count_children};

/// Collects the entries of a plan whose sources exist.
struct Builder<'a> {
    names: HashSet<&'a str>,
    plan: Plan,
}

impl<'a> Builder<'a> {
    fn new(names: impl Iterator<Item = &'a str>) -> Self {
        Self { names: names.collect(), plan: Plan::default() }
    }

    /// Number of consecutive blocks below `stem`.
    fn count(&self, stem: &str) -> usize {
        count_children(self.names.iter().copied(), stem)
    }

    fn copy(&mut self, ours: &str, theirs: &str) {
        if self.names.contains(theirs) {
            self.plan.put(ours.to_owned(), Piece::Copy(theirs.to_owned()));
        }
    }

    /// Weight and bias of a layer.
    fn layer(&mut self, ours: &str, theirs: &str) {
        for end in ["weight", "bias"] {
            self.copy(&format!("{ours}.{end}"), &format!("{theirs}.{end}"));
        }
    }

    /// Weight and bias of a layer whose two halves are exchanged.
    fn swapped(&mut self, ours: &str, theirs: &str) {
        for end in ["weight", "bias"] {
            let source = format!("{theirs}.{end}");
            if self.names.contains(source.as_str()) {
                self.plan.put(format!("{ours}.{end}"), Piece::SwapHalves(source));
            }
        }
    }

    /// Weight and bias of layers that the single file fuses.
    fn fused(&mut self, ours: &str, theirs: &[String]) {
        for end in ["weight", "bias"] {
            let sources: Vec<String> = theirs.iter().map(|layer| format!("{layer}.{end}")).collect();
            if sources.iter().any(|s| self.names.contains(s.as_str())) {
                self.plan.put(format!("{ours}.{end}"), Piece::Rows(sources));
            }
        }
    }
}

fn below(stem: &str, layers: &[&str]) -> Vec<String> {
    layers.iter().map(|layer| format!("{stem}.{layer}")).collect()
}

/// The plan for a Flux transformer of these tensor names.
pub fn flux<'a>(names: impl Iterator<Item = &'a str>) -> Plan {
    let mut b = Builder::new(names);
    for (ours, theirs) in [
        ("time_in", "time_text_embed.timestep_embedder"),
        ("guidance_in", "time_text_embed.guidance_embedder"),
        ("vector_in", "time_text_embed.text_embedder"),
    ] {
        b.layer(&format!("{ours}.in_layer"), &format!("{theirs}.linear_1"));
        b.layer(&format!("{ours}.out_layer"), &format!("{theirs}.linear_2"));
    }
    b.layer("txt_in", "context_embedder");
    b.layer("img_in", "x_embedder");
    for i in 0..b.count("transformer_blocks") {
        let (ours, theirs) = (format!("double_blocks.{i}"), format!("transformer_blocks.{i}"));
        for (our, their) in [
            ("img_mod.lin", "norm1.linear"),
            ("txt_mod.lin", "norm1_context.linear"),
            ("img_attn.proj", "attn.to_out.0"),
            ("txt_attn.proj", "attn.to_add_out"),
            ("img_mlp.0", "ff.net.0.proj"),
            ("img_mlp.2", "ff.net.2"),
            ("txt_mlp.0", "ff_context.net.0.proj"),
            ("txt_mlp.2", "ff_context.net.2"),
        ] {
            b.layer(&format!("{ours}.{our}"), &format!("{theirs}.{their}"));
        }
        for (our, their) in [
            ("img_attn.norm.query_norm", "attn.norm_q"),
            ("img_attn.norm.key_norm", "attn.norm_k"),
            ("txt_attn.norm.query_norm", "attn.norm_added_q"),
            ("txt_attn.norm.key_norm", "attn.norm_added_k"),
        ] {
            b.copy(&format!("{ours}.{our}.scale"), &format!("{theirs}.{their}.weight"));
        }
        b.fused(&format!("{ours}.img_attn.qkv"), &below(&theirs, &["attn.to_q", "attn.to_k", "attn.to_v"]));
        let added = ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"];
        b.fused(&format!("{ours}.txt_attn.qkv"), &below(&theirs, &added));
    }
    for i in 0..b.count("single_transformer_blocks") {
        let (ours, theirs) = (format!("single_blocks.{i}"), format!("single_transformer_blocks.{i}"));
        b.layer(&format!("{ours}.modulation.lin"), &format!("{theirs}.norm.linear"));
        b.layer(&format!("{ours}.linear2"), &format!("{theirs}.proj_out"));
        let first = ["attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"];
        b.fused(&format!("{ours}.linear1"), &below(&theirs, &first));
        b.copy(&format!("{ours}.norm.query_norm.scale"), &format!("{theirs}.attn.norm_q.weight"));
        b.copy(&format!("{ours}.norm.key_norm.scale"), &format!("{theirs}.attn.norm_k.weight"));
    }
    b.swapped("final_layer.adaLN_modulation.1", "norm_out.linear");
    b.layer("final_layer.linear", "proj_out");
    b.plan
}

/// The plan for a Stable Diffusion 3 transformer of these tensor names.
pub fn sd3<'a>(names: impl Iterator<Item = &'a str>) -> Plan {
    let mut b = Builder::new(names);
    b.copy("pos_embed", "pos_embed.pos_embed");
    b.layer("x_embedder.proj", "pos_embed.proj");
    for (ours, theirs) in [("t_embedder", "timestep_embedder"), ("y_embedder", "text_embedder")] {
        b.layer(&format!("{ours}.mlp.0"), &format!("time_text_embed.{theirs}.linear_1"));
        b.layer(&format!("{ours}.mlp.2"), &format!("time_text_embed.{theirs}.linear_2"));
    }
    b.layer("context_embedder", "context_embedder");
    let depth = b.count("transformer_blocks");
    for i in 0..depth {
        let (ours, theirs) = (format!("joint_blocks.{i}"), format!("transformer_blocks.{i}"));
        for (our, their) in [
            ("x_block.adaLN_modulation.1", "norm1.linear"),
            ("x_block.attn.proj", "attn.to_out.0"),
            ("context_block.attn.proj", "attn.to_add_out"),
            ("x_block.mlp.fc1", "ff.net.0.proj"),
            ("x_block.mlp.fc2", "ff.net.2"),
            ("context_block.mlp.fc1", "ff_context.net.0.proj"),
            ("context_block.mlp.fc2", "ff_context.net.2"),
            ("x_block.attn.ln_q", "attn.norm_q"),
            ("x_block.attn.ln_k", "attn.norm_k"),
            ("context_block.attn.ln_q", "attn.norm_added_q"),
            ("context_block.attn.ln_k", "attn.norm_added_k"),
            ("x_block.attn2.proj", "attn2.to_out.0"),
            ("x_block.attn2.ln_q", "attn2.norm_q"),
            ("x_block.attn2.ln_k", "attn2.norm_k"),
        ] {
            b.layer(&format!("{ours}.{our}"), &format!("{theirs}.{their}"));
        }
        let modulation = format!("{ours}.context_block.adaLN_modulation.1");
        // Where the text stream ends (the last block of a base network), its modulation is scale and shift alone, which the
        // folder stores in that order.
        let ends = !b.names.contains(format!("{theirs}.attn.to_add_out.weight").as_str());
        if i + 1 == depth && ends {
            b.swapped(&modulation, &format!("{theirs}.norm1_context.linear"));
        } else {
            b.layer(&modulation, &format!("{theirs}.norm1_context.linear"));
        }
        for (our, layers) in [
            ("x_block.attn.qkv", ["attn.to_q", "attn.to_k", "attn.to_v"]),
            ("context_block.attn.qkv", ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"]),
            ("x_block.attn2.qkv", ["attn2.to_q", "attn2.to_k", "attn2.to_v"]),
        ] {
            b.fused(&format!("{ours}.{our}"), &below(&theirs, &layers));
        }
    }
    b.swapped("final_layer.adaLN_modulation.1", "norm_out.linear");
    b.layer("final_layer.linear", "proj_out");
    b.plan
}
