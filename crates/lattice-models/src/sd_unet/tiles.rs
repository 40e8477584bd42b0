//! HyperTile: self-attention within tiles.

use candle_core::{Result, Tensor};

use super::place::Place;
use crate::options::HyperTile;

/// How a feature map is cut: so many tiles down and across.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    height: usize,
    width: usize,
    down: usize,
    across: usize,
}

impl Cut {
    /// The cut of a place; None where it stays whole.
    pub(super) fn choose(options: &HyperTile, place: &Place<'_>) -> Option<Self> {
        let depth = place.depth()?;
        if depth > options.max_depth {
            return None;
        }
        let scale = if options.scale_depth { 1 << depth.min(usize::BITS as usize - 1) } else { 1 };
        let least = options.tile_size.saturating_mul(scale).max(1);
        let (height, width) = (place.height, place.width);
        let down = choice(&divisions(height, least, options.swap_size), place.draw(0))?;
        let across = choice(&divisions(width, least, options.swap_size), place.draw(1))?;
        (down * across > 1).then_some(Self { height, width, down, across })
    }

    /// Tokens [B, H W, C] as tiles [B tiles, cells, C].
    pub(super) fn split(self, tokens: &Tensor) -> Result<Tensor> {
        let (b, _, c) = tokens.dims3()?;
        let (rows, columns) = (self.height / self.down, self.width / self.across);
        let t = tokens.reshape(&[b, self.down, rows, self.across, columns, c])?;
        t.permute([0, 1, 3, 2, 4, 5])?.reshape((b * self.down * self.across, rows * columns, c))
    }

    /// The inverse of [`Self::split`].
    pub(super) fn join(self, tiles: &Tensor) -> Result<Tensor> {
        let (n, _, c) = tiles.dims3()?;
        let (rows, columns) = (self.height / self.down, self.width / self.across);
        let t = tiles.reshape(&[n / (self.down * self.across), self.down, self.across, rows, columns, c])?;
        t.permute([0, 1, 3, 2, 4, 5])?.reshape(((), self.height * self.width, c))
    }
}

/// Numbers of equal tiles that `size` can be cut into with none smaller than `least`: the greatest `swap` ones.
fn divisions(size: usize, least: usize, swap: usize) -> Vec<usize> {
    let sides = (least.min(size)..=size).filter(|side| *side > 0 && size.is_multiple_of(*side));
    sides.map(|side| size / side).take(swap.max(1)).collect()
}

fn choice(options: &[usize], draw: u64) -> Option<usize> {
    let index = draw % options.len().max(1) as u64;
    options.get(index as usize).copied()
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::options::ForwardOptions;

    #[test]
    fn tiles_are_at_least_as_large_as_asked() {
        assert_eq!(divisions(64, 32, 2), [2, 1]);
        assert_eq!(divisions(64, 8, 3), [8, 4, 2]);
        assert_eq!(divisions(7, 32, 2), [1]);
        assert_eq!(divisions(12, 5, 4), [2, 1]);
    }

    #[test]
    fn tiles_come_back_in_place() {
        let options = ForwardOptions::default();
        let place =
            Place { height: 6, width: 4, latent: (6, 4), seed: 3, options: &options, grounding: None };
        let cut = HyperTile { tile_size: 2, swap_size: 1, max_depth: 0, scale_depth: false };
        let cut = Cut::choose(&cut, &place).unwrap();
        assert_eq!((cut.down, cut.across), (3, 2));
        let tokens =
            Tensor::arange(0f32, 2.0 * 24.0 * 3.0, &Device::Cpu).unwrap().reshape((2, 24, 3)).unwrap();
        let tiles = cut.split(&tokens).unwrap();
        assert_eq!(tiles.dims(), [12, 4, 3]);
        // The first tile holds the first two cells of the first two rows.
        let first = tiles.get(0).unwrap().narrow(1, 0, 1).unwrap().flatten_all().unwrap();
        assert_eq!(first.to_vec1::<f32>().unwrap(), [0.0, 3.0, 12.0, 15.0]);
        let back = cut.join(&tiles).unwrap();
        assert_eq!(back.to_vec3::<f32>().unwrap(), tokens.to_vec3::<f32>().unwrap());
    }

    #[test]
    fn lower_levels_are_cut_as_far_as_asked() {
        let options = ForwardOptions::default();
        let place =
            Place { height: 32, width: 32, latent: (64, 64), seed: 0, options: &options, grounding: None };
        let cut = |max_depth, scale_depth| {
            let tiles = HyperTile { tile_size: 16, swap_size: 1, max_depth, scale_depth };
            Cut::choose(&tiles, &place).map(|cut| cut.down)
        };
        assert_eq!(cut(0, false), None);
        assert_eq!(cut(1, false), Some(2));
        assert_eq!(cut(1, true), None, "tiles of 32 are the whole map");
    }
}
