//! Conditionings: lists of encoded prompts with where, when and how strongly they apply.
//!
//! A [`Conditioning`] is what nodes build and combine ([`edit`]). Before a run the lists of a guider are resolved
//! against the latent ([`resolve_lists`]), and every model call turns each list into one prediction
//! ([`predict_lists`]).

mod area;
mod control;
pub mod edit;
mod grounding;
mod hooks;
mod predict;
mod resolve;

use std::sync::Arc;

use candle_core::Tensor;
use lattice_models::network::ReferencePlacement;

pub use area::{Area, Cells};
pub use control::{AppliedControl, ControlCall, ControlHint, ControlSource, HintEncoder};
pub use grounding::{BoxPrompt, GroundingHint};
pub use hooks::{ActiveHook, Hook, HookSource, HookState, Keyframe, Keyframes};
pub(crate) use predict::repeat_batch;
pub use predict::{List, predict_lists};
pub use resolve::{Resolved, resolve_lists};

/// Encoded prompts that are evaluated together.
pub type Conditioning = Vec<Entry>;

/// One encoded prompt and its options.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Text states, [1, tokens, width].
    pub tensor: Tensor,
    /// Everything else.
    pub options: Options,
}

/// Options of an entry. The default applies everywhere, always, with strength 1.
#[derive(Clone, Debug)]
pub struct Options {
    /// Pooled text, [1, width].
    pub pooled: Option<Tensor>,
    /// Which tokens count, [1, tokens].
    pub attention_mask: Option<Tensor>,
    /// Where in the latent it applies.
    pub area: Option<Area>,
    /// Weight among the entries of its list.
    pub strength: f64,
    /// Weight per pixel, [n, h, w] of any size.
    pub mask: Option<Tensor>,
    /// Factor of the mask.
    pub mask_strength: f64,
    /// Whether the mask's bounding box becomes the area.
    pub set_area_to_bounds: bool,
    /// Share of the sampling from which on it applies.
    pub start_percent: Option<f64>,
    /// Share of the sampling up to which it applies.
    pub end_percent: Option<f64>,
    /// Whether it fills what the other entries of its list leave.
    pub default: bool,
    /// Share of the sampling from which on and before which it applies, beside the range above: its text was encoded for
    /// that part.
    pub text_range: Option<(f64, f64)>,
    /// Changes of weights that apply where it is evaluated.
    pub hooks: Vec<Hook>,
    /// A control network or adapter.
    pub control: Option<ControlHint>,
    /// The text that control networks read instead of the entry's.
    pub control_text: Option<ControlText>,
    /// Texts in boxes.
    pub grounding: Option<Arc<GroundingHint>>,
    /// Pictures that unCLIP models read.
    pub pictures: Vec<PicturePrompt>,
    /// Distilled guidance.
    pub guidance: Guidance,
    /// Sizes that SDXL is told.
    pub sizes: SizeOptions,
    /// Latent of the picture to paint in, unscaled, [B, C, h, w].
    pub concat_latent: Option<Tensor>,
    /// Where to paint (1), [n, 1, h, w].
    pub concat_mask: Option<Tensor>,
    /// Latents of pictures to look at, unscaled, [n, C, h, w] of any size (Flux Kontext).
    pub references: Vec<Tensor>,
    /// How those are placed beside the picture.
    pub reference_placement: ReferencePlacement,
}

/// An encoded prompt for control networks.
#[derive(Clone, Debug)]
pub struct ControlText {
    /// Text states, [1, tokens, width].
    pub tensor: Tensor,
    /// Pooled text, [1, width].
    pub pooled: Option<Tensor>,
}

/// A picture as unCLIP models read it.
#[derive(Clone, Debug)]
pub struct PicturePrompt {
    /// One vector for each picture, [n, width].
    pub embeds: Tensor,
    /// Factor of what the network is given.
    pub strength: f64,
    /// How much noise hides the picture's details, from 0 to 1.
    pub noise_augmentation: f64,
}

/// The guidance scale that distilled models take as an input.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Guidance {
    /// The family's usual one.
    #[default]
    Usual,
    /// None: the network does without the input.
    Off,
    /// This one.
    Scale(f64),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pooled: None,
            attention_mask: None,
            area: None,
            strength: 1.0,
            mask: None,
            mask_strength: 1.0,
            set_area_to_bounds: false,
            start_percent: None,
            end_percent: None,
            default: false,
            text_range: None,
            hooks: Vec::new(),
            control: None,
            control_text: None,
            grounding: None,
            pictures: Vec::new(),
            guidance: Guidance::default(),
            sizes: SizeOptions::default(),
            concat_latent: None,
            concat_mask: None,
            references: Vec::new(),
            reference_placement: ReferencePlacement::default(),
        }
    }
}

impl Options {
    /// Restricts it to an area, whatever a mask's bounds would say.
    pub fn set_area(&mut self, area: Area, strength: f64) {
        self.area = Some(area);
        self.strength = strength;
        self.set_area_to_bounds = false;
    }

    /// Weighs it by a mask, perhaps restricting it to the mask's bounding box.
    pub fn set_mask(&mut self, mask: Tensor, strength: f64, bounds: bool) {
        self.mask = Some(mask);
        self.mask_strength = strength;
        self.set_area_to_bounds = bounds;
    }
}

/// Sizes in pixels and the aesthetic score that SDXL and its refiner are conditioned on (arXiv 2307.01952, section
/// 2.2). What is absent has the family's default.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SizeOptions {
    /// Original width.
    pub width: Option<f64>,
    /// Original height.
    pub height: Option<f64>,
    /// Left edge of the crop.
    pub crop_w: Option<f64>,
    /// Upper edge of the crop.
    pub crop_h: Option<f64>,
    /// Width to generate.
    pub target_width: Option<f64>,
    /// Height to generate.
    pub target_height: Option<f64>,
    /// Aesthetic score (refiner).
    pub aesthetic_score: Option<f64>,
}

impl Entry {
    /// A prompt without options.
    pub fn new(tensor: Tensor) -> Self {
        Self { tensor, options: Options::default() }
    }
}

#[cfg(test)]
mod tests;
