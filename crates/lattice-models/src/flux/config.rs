//! What the tensors tell.

use lattice_weights::Scope;

use crate::error::Built;
use crate::layers::ScopeExt;

/// Side of a patch; no tensor tells it.
pub(super) const PATCH: usize = 2;

/// Structure of a Flux transformer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FluxConfig {
    /// Channels of the input: 16, or more where conditions are joined on.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Width of the token streams.
    pub hidden: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of the feed-forward part of single blocks.
    pub mlp: usize,
    /// Blocks with separate streams.
    pub depth: usize,
    /// Blocks with one stream.
    pub depth_single: usize,
    /// Shares of a head that the axes (index, row, column) rotate.
    pub axes: [usize; 3],
    /// Width of the text states.
    pub context_width: usize,
    /// Width of the vector condition.
    pub vector_width: usize,
    /// Whether there is an input for distilled guidance.
    pub guidance: bool,
}

impl FluxConfig {
    /// Reads the structure from the tensors below `scope`.
    pub fn read(scope: &Scope<'_>) -> Built<Self> {
        let input = scope.shape("img_in.weight", 2)?;
        let hidden = input[0];
        let head = scope.shape("double_blocks.0.img_attn.norm.key_norm.scale", 1)?[0];
        // The published head of 128 is shared out as 16, 56, 56.
        if !hidden.is_multiple_of(head) || !head.is_multiple_of(8) || !(head - head / 8).is_multiple_of(4) {
            let name = scope.full_name("double_blocks.0.img_attn.norm.key_norm.scale");
            return Err(scope.invalid(format!("`{name}`: heads {head} wide do not fit a width of {hidden}")));
        }
        // A control network has no output of its own.
        let last = "final_layer.linear.weight";
        let output = if scope.has(last) { scope.shape(last, 2)?[0] } else { input[1] };
        let cells = PATCH * PATCH;
        for (name, size) in [("img_in.weight", input[1]), (last, output)] {
            if !size.is_multiple_of(cells) {
                let name = scope.full_name(name);
                return Err(
                    scope.invalid(format!("`{name}`: {size} values make no patches of {cells} cells"))
                );
            }
        }
        let axis = head / 8;
        let depth_single = scope.at("single_blocks").count();
        let mlp = if depth_single > 0 {
            let rows = scope.shape("single_blocks.0.linear1.weight", 2)?[0];
            rows.checked_sub(3 * hidden).filter(|&m| m > 0).ok_or_else(|| {
                let name = scope.full_name("single_blocks.0.linear1.weight");
                scope.invalid(format!("`{name}`: {rows} rows leave none for a feed-forward layer"))
            })?
        } else {
            0
        };
        Ok(Self {
            in_channels: input[1] / cells,
            out_channels: output / cells,
            hidden,
            heads: hidden / head,
            mlp,
            depth: scope.at("double_blocks").count(),
            depth_single,
            axes: [axis, (head - axis) / 2, (head - axis) / 2],
            context_width: scope.shape("txt_in.weight", 2)?[1],
            vector_width: scope.shape("vector_in.in_layer.weight", 2)?[1],
            guidance: scope.has("guidance_in.in_layer.weight"),
        })
    }
}
