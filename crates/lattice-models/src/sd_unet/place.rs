//! Where in a U-Net an attention stands, and what is to be different there.

use super::gligen::Grounding;
use crate::options::ForwardOptions;

/// The feature map of a transformer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// Rows.
    pub(super) height: usize,
    /// Columns.
    pub(super) width: usize,
    /// Rows and columns of the latent.
    pub(super) latent: (usize, usize),
    /// What random choices depend on besides the place: the time, so that they differ from step to step and not from
    /// run to run.
    pub(super) seed: u64,
    /// Changes that are asked for.
    pub(super) options: &'a ForwardOptions,
    /// Texts in boxes.
    pub(super) grounding: Option<&'a Grounding>,
}

impl Place<'_> {
    /// How often the latent was halved to get here; None if the sizes say otherwise.
    pub(super) fn depth(&self) -> Option<usize> {
        let halved = |(h, w): (usize, usize)| (h.div_ceil(2), w.div_ceil(2));
        let mut sizes =
            std::iter::successors(Some(self.latent), |size| (*size != (1, 1)).then(|| halved(*size)));
        sizes.position(|size| size == (self.height, self.width))
    }

    /// A random number, the `index`-th of this place (SplitMix64, Steele et al. 2014).
    pub(super) fn draw(&self, index: u64) -> u64 {
        let sizes = (self.height as u64) << 32 | self.width as u64;
        let state = self.seed ^ sizes.rotate_left(17);
        let z = state.wrapping_add((index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
