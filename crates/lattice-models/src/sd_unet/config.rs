//! What the U-Net's tensors tell.

use lattice_weights::Scope;

use crate::error::Built;
use crate::hints::Hints;
use crate::layers::ScopeExt;

/// How attention is split into heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heads {
    /// That many at every level (Stable Diffusion 1.x: 8).
    Count(usize),
    /// As many as heads of that width make (Stable Diffusion 2.x, SDXL: 64).
    Width(usize),
}

/// Structure of a U-Net.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnetConfig {
    /// Channels of the input: 4, or 9 with mask and masked image (inpainting).
    pub in_channels: usize,
    /// Channels of the prediction.
    pub out_channels: usize,
    /// Width of the first level.
    pub model_channels: usize,
    /// Width of each level divided by that of the first.
    pub channel_mult: Vec<usize>,
    /// Residual blocks of each level on the way down.
    pub num_res_blocks: Vec<usize>,
    /// Transformer blocks after each residual block on the way down.
    pub transformer_depth: Vec<usize>,
    /// Transformer blocks after each residual block on the way up, from the first level to the last.
    pub transformer_depth_output: Vec<usize>,
    /// Transformer blocks in the middle; none: only residual blocks stand there, or nothing.
    pub transformer_depth_middle: Option<usize>,
    /// Width of the text states.
    pub context_width: Option<usize>,
    /// Width of the added condition (pooled text, sizes), if there is one.
    pub added_width: Option<usize>,
    /// Whether transformers project by linear layers instead of 1x1 convolutions.
    pub linear_projection: bool,
    /// How attention is split.
    pub heads: Heads,
}

impl UnetConfig {
    /// Reads the structure from the tensors below `scope`.
    ///
    /// # Errors
    /// If a tensor that tells it is missing or has an impossible shape.
    pub fn read(scope: &Scope<'_>, hints: &Hints) -> Built<Self> {
        let first = scope.at("input_blocks").at(0).at(0).shape("weight", 4)?;
        let (model_channels, in_channels) = (first[0], first[1]);
        // A ControlNet has no output of its own.
        let out = scope.at("out").at(2);
        let out_channels = if out.has("weight") { out.shape("weight", 4)?[0] } else { in_channels };
        let added_width = if scope.has("label_emb.0.0.weight") {
            Some(scope.shape("label_emb.0.0.weight", 2)?[1])
        } else {
            None
        };

        let depth = |block: &Scope<'_>| block.at(1).at("transformer_blocks").count();
        let (mut channel_mult, mut num_res_blocks) = (vec![], vec![]);
        let mut transformer_depth = vec![];
        let (mut width, mut blocks) = (model_channels, 0);
        let inputs = scope.at("input_blocks");
        for i in 1..inputs.count() {
            let block = inputs.at(i);
            if block.has("0.op.weight") {
                channel_mult.push(width / model_channels);
                num_res_blocks.push(blocks);
                blocks = 0;
            } else {
                width = block.shape("0.out_layers.3.weight", 4)?[0];
                transformer_depth.push(depth(&block));
                blocks += 1;
            }
        }
        channel_mult.push(width / model_channels);
        num_res_blocks.push(blocks);

        let outputs = scope.at("output_blocks");
        let transformer_depth_output = (0..outputs.count()).rev().map(|i| depth(&outputs.at(i))).collect();
        let middle = scope.at("middle_block");
        let transformer_depth_middle = (middle.count() > 1).then(|| depth(&middle));

        let transformer = Self::first_transformer(scope);
        let context_width = match &transformer {
            Some(t) => Some(t.shape("transformer_blocks.0.attn2.to_k.weight", 2)?[1]),
            None => None,
        };
        let linear_projection = match &transformer {
            Some(t) => t.weight("proj_in.weight")?.dims().len() == 2,
            None => false,
        };
        let heads = match (hints.count("num_heads"), hints.count("num_head_channels")) {
            (Some(count), _) => Heads::Count(count),
            (None, Some(width)) => Heads::Width(width),
            // The published families that project by convolutions are the 1.x ones.
            (None, None) if linear_projection => Heads::Width(64),
            (None, None) => Heads::Count(8),
        };
        Ok(Self {
            in_channels,
            out_channels,
            model_channels,
            channel_mult,
            num_res_blocks,
            transformer_depth,
            transformer_depth_output,
            transformer_depth_middle,
            context_width,
            added_width,
            linear_projection,
            heads,
        })
    }

    /// The first transformer in the file's order: down, middle, up.
    fn first_transformer<'a>(scope: &Scope<'a>) -> Option<Scope<'a>> {
        let blocks = |part: &str| {
            let part = scope.at(part);
            (0..part.count()).map(|i| part.at(i).at(1)).collect::<Vec<_>>()
        };
        blocks("input_blocks")
            .into_iter()
            .chain([scope.at("middle_block").at(1)])
            .chain(blocks("output_blocks"))
            .find(|s| s.has("transformer_blocks.0.attn2.to_k.weight"))
    }
}
