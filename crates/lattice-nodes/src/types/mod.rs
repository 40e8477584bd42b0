//! The graph's value types.

mod clip;
mod clip_vision;
mod control;
mod guider;
mod hooks;
mod model;
mod placed;
mod sampling;
mod vae;

use std::sync::Arc;

use candle_core::Tensor;

use crate::node::GraphType;

pub use clip::{Clip, ClipEncoder, ClipFamily, ClipHooks, EncodedPrompt, PromptChunks, ScheduledClip};
pub use clip_vision::{ClipVision, ClipVisionOutput, pixels_for_vision};
pub use control::{ControlNet, Gligen, StyleModel, UpscaleModel};
pub use guider::Guider;
pub use hooks::{Floats, HookFile, HookKeyframes, Hooks, Parameters, TimestepsRange};
pub use model::{Conditioning, Model};
pub use sampling::{Noise, Sampler, Sigmas};
pub use vae::{Vae, crop_to_multiple};

/// Patched weights of earlier combinations that a model keeps, for switching between adapters.
pub(crate) const PATCH_CACHE_BYTES: usize = 1 << 30;

/// Memory of a tensor's elements.
pub fn tensor_bytes(tensor: &Tensor) -> usize {
    tensor.elem_count() * tensor.dtype().size_in_bytes()
}

/// Pictures: f32 [B, H, W, C] in 0..1; C is 3, or 4 with alpha.
#[derive(Clone, Debug)]
pub struct Image(pub Tensor);

impl Image {
    /// The colours as planes [B, 3, H, W] in 0..1, without alpha.
    ///
    /// # Errors
    /// If there are fewer than three channels.
    pub fn planes(&self) -> candle_core::Result<Tensor> {
        let channels = self.0.dim(3)?;
        if channels < 3 {
            candle_core::bail!("colours are needed; the picture has {channels} channels")
        }
        self.0.narrow(3, 0, 3)?.permute((0, 3, 1, 2))?.contiguous()
    }
}

impl GraphType for Image {
    const NAME: &'static str = "IMAGE";

    fn bytes(&self) -> usize {
        tensor_bytes(&self.0)
    }
}

/// Masks: f32 [B, H, W] (some nodes make [H, W]); 1 is selected, or transparent.
#[derive(Clone, Debug)]
pub struct Mask(pub Tensor);

impl GraphType for Mask {
    const NAME: &'static str = "MASK";

    fn bytes(&self) -> usize {
        tensor_bytes(&self.0)
    }
}

impl Mask {
    /// As [B, 1, H, W].
    ///
    /// # Errors
    /// If it is no mask of one of those shapes.
    pub fn planes(&self) -> candle_core::Result<Tensor> {
        match *self.0.dims() {
            [h, w] => self.0.reshape((1, 1, h, w)),
            [b, h, w] => self.0.reshape((b, 1, h, w)),
            [b, c, h, w] => self.0.reshape((b * c, 1, h, w)),
            ref other => candle_core::bail!("a mask has 2 or 3 axes, not {}", other.len()),
        }
    }
}

/// Drawings: documents of SVG.
#[derive(Clone, Debug)]
pub struct Svg(pub Arc<[String]>);

impl GraphType for Svg {
    const NAME: &'static str = "SVG";

    fn bytes(&self) -> usize {
        self.0.iter().map(String::len).sum()
    }
}

/// Latents in the scale of the model file (before the latent format's scaling).
#[derive(Clone, Debug)]
pub struct Latent {
    /// [B, C, H, W] or [B, C, T, H, W].
    pub samples: Tensor,
    /// Where to denoise (1) and what to keep (0): [B, 1, H, W] of any size, resized at sampling.
    pub noise_mask: Option<Tensor>,
    /// Which draw of the noise each item of the batch takes.
    pub batch_index: Option<Arc<[usize]>>,
    /// What the latent holds if not pictures: `audio`.
    pub kind: Option<&'static str>,
}

impl Latent {
    /// Samples alone.
    pub fn new(samples: Tensor) -> Self {
        Self { samples, noise_mask: None, batch_index: None, kind: None }
    }

    /// The same latent with other samples.
    #[must_use]
    pub fn with_samples(&self, samples: Tensor) -> Self {
        Self { samples, ..self.clone() }
    }
}

impl GraphType for Latent {
    const NAME: &'static str = "LATENT";

    fn bytes(&self) -> usize {
        tensor_bytes(&self.samples) + self.noise_mask.as_ref().map_or(0, tensor_bytes)
    }
}
