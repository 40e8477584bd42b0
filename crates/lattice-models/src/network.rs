//! What every diffusion network, whatever its family, takes and gives.

use candle_core::{Result, Tensor};

use crate::options::ForwardOptions;
use crate::sd_unet::Grounding;

/// Inputs of one forward call. Which of the optional ones a family reads is its own business.
#[derive(Clone, Debug)]
pub struct NetworkInput {
    /// Scaled noisy latent, [B, C, H, W] or [B, C, T, H, W]; extra input channels (inpainting, control) are already
    /// joined on.
    pub x: Tensor,
    /// What the family calls the timestep (an index, sigma, or sigma times 1000): [B].
    pub timesteps: Tensor,
    /// Encoded text, [B, tokens, width].
    pub context: Option<Tensor>,
    /// Which of the context's tokens count, [B, tokens], 1 or 0.
    pub context_mask: Option<Tensor>,
    /// Vector condition (pooled text, sizes), [B, width].
    pub y: Option<Tensor>,
    /// Distilled guidance, [B].
    pub guidance: Option<Tensor>,
    /// Further pictures that the network attends to (Flux).
    pub reference: Option<Reference>,
    /// Residuals of a ControlNet or T2I-Adapter.
    pub control: Option<Control>,
    /// Texts in boxes (U-Nets).
    pub grounding: Option<Grounding>,
}

impl NetworkInput {
    /// The two inputs that every family has.
    pub fn new(x: Tensor, timesteps: Tensor) -> Self {
        Self {
            x,
            timesteps,
            context: None,
            context_mask: None,
            y: None,
            guidance: None,
            reference: None,
            control: None,
            grounding: None,
        }
    }
}

/// Reference latents and how they are placed beside the picture.
#[derive(Clone, Debug)]
pub struct Reference {
    /// Latents [B, C, H, W] of any size, in the scale of the network.
    pub latents: Vec<Tensor>,
    /// Their placement.
    pub placement: ReferencePlacement,
}

/// Positions that tokens of reference latents get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReferencePlacement {
    /// Index 1; each beside those before it, to the right or below, whichever keeps the whole smaller.
    #[default]
    Offset,
    /// Index 1, 2, ... without a shift.
    Index,
    /// Index 0, shifted diagonally beyond the picture and each other.
    Diagonal,
}

/// Residuals that control networks add to the base network; U-Nets consume the lists from the end, transformers
/// take entry i at block i.
#[derive(Clone, Debug, Default)]
pub struct Control {
    /// Added after input blocks (T2I-Adapter), or per double block (Flux).
    pub input: Vec<Option<Tensor>>,
    /// Added after the middle block.
    pub middle: Vec<Option<Tensor>>,
    /// Added to the skips, or per joint block (Stable Diffusion 3), or per single block (Flux).
    pub output: Vec<Option<Tensor>>,
}

impl Control {
    /// With every residual changed.
    ///
    /// # Errors
    /// Those of `change`.
    pub fn map(&self, change: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        let changed = |list: &[Option<Tensor>]| -> Result<Vec<Option<Tensor>>> {
            list.iter().map(|residual| residual.as_ref().map(&change).transpose()).collect()
        };
        Ok(Self {
            input: changed(&self.input)?,
            middle: changed(&self.middle)?,
            output: changed(&self.output)?,
        })
    }

    /// The residuals of two control networks at once, place by place.
    ///
    /// # Errors
    /// If residuals of one place differ in size.
    pub fn merged(&self, other: &Self) -> Result<Self> {
        let merged = |a: &[Option<Tensor>], b: &[Option<Tensor>]| -> Result<Vec<Option<Tensor>>> {
            let places = 0..a.len().max(b.len());
            let at = |list: &[Option<Tensor>], i: usize| list.get(i).cloned().flatten();
            let both = places.map(|i| match (at(a, i), at(b, i)) {
                (Some(a), Some(b)) => (a + b).map(Some),
                (a, b) => Ok(a.or(b)),
            });
            both.collect()
        };
        Ok(Self {
            input: merged(&self.input, &other.input)?,
            middle: merged(&self.middle, &other.middle)?,
            output: merged(&self.output, &other.output)?,
        })
    }
}

/// A network that predicts noise, velocity or data from a noisy latent.
pub trait DiffusionNetwork: Send + Sync {
    /// The raw network output, before any prediction-type conversion: shape of `input.x` with the family's output
    /// channels.
    fn forward(&self, input: &NetworkInput, options: &ForwardOptions) -> Result<Tensor>;
}
