//! Texts in boxes of the picture (GLIGEN).

use std::sync::Arc;

use candle_core::{Device, Result, Tensor};
use lattice_models::sd_unet::{BoxedText, Gligen, Grounding};

/// A text in a box, in cells of the latent.
#[derive(Clone, Debug)]
pub struct BoxPrompt {
    /// Pooled text before its projection, [1, width].
    pub text: Tensor,
    /// Rows and columns.
    pub size: (usize, usize),
    /// First row and column.
    pub offset: (usize, usize),
}

/// Texts in boxes and the layers that read them.
#[derive(Clone, Debug)]
pub struct GroundingHint {
    /// The layers.
    pub layers: Arc<Gligen>,
    /// The boxes, in the order in which they were added.
    pub boxes: Vec<BoxPrompt>,
}

impl GroundingHint {
    /// The boxes as the layers read them for a latent of that many rows and columns.
    ///
    /// # Errors
    /// If there are too many, or a text does not fit.
    pub(crate) fn at(&self, (height, width): (usize, usize), device: &Device) -> Result<Grounding> {
        let share = |cells: usize, all: usize| cells as f64 / all.max(1) as f64;
        let boxes = self.boxes.iter().map(|BoxPrompt { text, size, offset }| BoxedText {
            text: text.clone(),
            edges: [
                share(offset.1, width),
                share(offset.0, height),
                share(offset.1 + size.1, width),
                share(offset.0 + size.0, height),
            ],
        });
        let objects = self.layers.objects(&boxes.collect::<Vec<_>>(), device)?;
        Ok(Grounding { layers: self.layers.clone(), objects })
    }
}
