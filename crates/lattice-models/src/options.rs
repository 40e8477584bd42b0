//! Changes to the inner workings of a network that model patches ask for. The default changes nothing; what a network
//! has no place for it ignores.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{Result, Tensor};

use crate::hypernetwork::Hypernetwork;

/// Everything that can be changed about a forward call.
#[derive(Clone, Debug, Default)]
pub struct ForwardOptions {
    /// U-Nets: weights of backbone and skips on the way up, one after the other.
    pub free_u: Vec<FreeU>,
    /// U-Nets: how the middle block attends to itself.
    pub middle_attention: MiddleAttention,
    /// U-Nets: self-attention within tiles.
    pub hyper_tile: Option<HyperTile>,
    /// U-Nets: self-attention over fewer tokens.
    pub token_merging: Option<TokenMerging>,
    /// U-Nets: some levels at a lower resolution.
    pub downscale: Option<Downscale>,
    /// U-Nets: changes of keys and values in every attention, each with its strength.
    pub hypernetworks: Vec<(Arc<Hypernetwork>, f64)>,
    /// Transformers: blocks that hand their input on.
    pub skipped: SkippedBlocks,
}

/// FreeU (Si et al., arXiv 2309.11497): stronger backbone features and weaker low frequencies of skips, in the first two
/// levels of the way up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FreeU {
    /// Factors of the backbone, for blocks of 4 and of 2 times the first level's channels.
    pub backbone: [f64; 2],
    /// Factors of the skip's lowest frequencies.
    pub skip: [f64; 2],
    /// Whether the backbone's factor follows the feature map (version 2) or is the same everywhere.
    pub structured: bool,
}

/// Self-attention of a U-Net's middle block.
#[derive(Clone, Debug, Default)]
pub enum MiddleAttention {
    /// As it was trained.
    #[default]
    Usual,
    /// Every cell attends to itself alone (perturbed attention guidance, arXiv 2403.17377).
    Identity,
    /// As it was trained, recorded.
    Watched(AttentionWatch),
}

/// How much attention the cells of a U-Net's middle block got in the last call.
#[derive(Clone, Debug, Default)]
pub struct AttentionWatch(Arc<Mutex<Option<Tensor>>>);

impl AttentionWatch {
    /// Takes what the last call left: the attention that each cell gets from all others, mean over heads, [B, 1, h, w].
    /// It is 1 on average.
    pub fn take(&self) -> Option<Tensor> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(crate) fn put(&self, received: Tensor) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(received);
    }
}

/// Self-attention within tiles of the feature map (HyperTile).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HyperTile {
    /// Least side of a tile in latent cells.
    pub tile_size: usize,
    /// Among how many ways to cut is chosen, anew at every noise level so that no seams stay.
    pub swap_size: usize,
    /// Lowest level that is cut: 0 is the latent's own resolution.
    pub max_depth: usize,
    /// Whether tiles keep their number of cells at lower levels.
    pub scale_depth: bool,
}

/// Token merging (Bolya and Hoffman, arXiv 2303.17604): similar tokens of the latent's own resolution are one in
/// self-attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenMerging {
    /// Share of the tokens that are merged into others; at most three quarters can be.
    pub ratio: f64,
}

/// Blocks that are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SkippedBlocks {
    /// Joint (double) blocks.
    pub double: Vec<usize>,
    /// Single blocks.
    pub single: Vec<usize>,
}

/// Deep shrink: feature maps are made smaller before (or after) a block of the way down, and as large as their skips again
/// on the way up, so that a network sees large pictures at the size it was trained on.
#[derive(Clone, Debug)]
pub struct Downscale {
    /// The block of the way down, counted from 0.
    pub block: usize,
    /// By how much sides are divided.
    pub factor: f64,
    /// Whether the block's skip keeps its size.
    pub after_skip: bool,
    /// How maps are made smaller.
    pub down: Resize,
    /// How they are made larger.
    pub up: Resize,
}

/// A way to resize feature maps.
#[derive(Clone)]
pub struct Resize(Arc<ResizeFn>);

type ResizeFn = dyn Fn(&Tensor, usize, usize) -> Result<Tensor> + Send + Sync;

impl Resize {
    /// From a function that resizes [B, C, H, W] to a height and a width.
    pub fn new(resize: impl Fn(&Tensor, usize, usize) -> Result<Tensor> + Send + Sync + 'static) -> Self {
        Self(Arc::new(resize))
    }

    /// The map at another size.
    pub(crate) fn apply(&self, t: &Tensor, height: usize, width: usize) -> Result<Tensor> {
        (self.0)(t, height, width)
    }
}

impl fmt::Debug for Resize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resize")
    }
}
