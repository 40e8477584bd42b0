//! What the tensors tell.

use lattice_weights::Scope;

use crate::error::Built;
use crate::layers::ScopeExt;

/// Width of an attention head in all published files.
pub(super) const HEAD_WIDTH: usize = 64;

/// Structure of an MMDiT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MmditConfig {
    /// Joint blocks.
    pub depth: usize,
    /// Width of the token streams.
    pub hidden: usize,
    /// Attention heads.
    pub heads: usize,
    /// Side of a patch in latent cells.
    pub patch: usize,
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Width of the vector condition.
    pub pooled_width: usize,
    /// Width of the text states.
    pub context_width: usize,
    /// Side of the stored table of positions.
    pub position_side: usize,
    /// Whether queries and keys are normalised.
    pub qk_norm: bool,
    /// Blocks with a second self-attention of the image tokens.
    pub second_attention: Vec<usize>,
}

impl MmditConfig {
    /// Reads the structure from the tensors below `scope`.
    pub fn read(scope: &Scope<'_>) -> Built<Self> {
        let patch = scope.shape("x_embedder.proj.weight", 4)?;
        let (hidden, in_channels, side) = (patch[0], patch[1], patch[2]);
        let positions = scope.shape("pos_embed", 3)?[1];
        let position_side = positions.isqrt();
        if position_side * position_side != positions {
            let name = scope.full_name("pos_embed");
            return Err(scope.invalid(format!("`{name}`: {positions} positions make no square")));
        }
        if !hidden.is_multiple_of(HEAD_WIDTH) {
            let name = scope.full_name("x_embedder.proj.weight");
            return Err(scope.invalid(format!("`{name}`: {hidden} rows do not make heads {HEAD_WIDTH} wide")));
        }
        // A control network has no output of its own.
        let last = "final_layer.linear.weight";
        let out = if scope.has(last) { scope.shape(last, 2)?[0] } else { in_channels * side * side };
        if out % (side * side) != 0 {
            let name = scope.full_name(last);
            return Err(scope.invalid(format!("`{name}`: {out} rows do not make patches {side} wide")));
        }
        let blocks = scope.at("joint_blocks");
        let depth = blocks.count();
        Ok(Self {
            depth,
            hidden,
            heads: hidden / HEAD_WIDTH,
            patch: side,
            in_channels,
            out_channels: out / (side * side),
            pooled_width: scope.shape("y_embedder.mlp.0.weight", 2)?[1],
            context_width: scope.shape("context_embedder.weight", 2)?[1],
            position_side,
            qk_norm: scope.has("joint_blocks.0.x_block.attn.ln_q.weight"),
            second_attention: (0..depth).filter(|&i| blocks.at(i).has("x_block.attn2.qkv.weight")).collect(),
        })
    }
}
