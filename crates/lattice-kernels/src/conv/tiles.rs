//! The grid of tiles that cover the result of a convolution, counted through all images.

use std::ops::Range;

use super::Geometry;

/// Height and width of a tile of the result.
pub(super) const EDGE: usize = 4;

/// Tiles of all images: image by image, row by row.
pub(super) struct Tiling {
    batch: usize,
    /// Rows and columns of tiles per image.
    grid: [usize; 2],
}

/// Tiles side by side in one row of one image.
pub(super) struct Segment {
    pub(super) image: usize,
    /// Row of tiles.
    pub(super) y: usize,
    /// First column of tiles.
    pub(super) x: usize,
    /// Number of the first tile.
    pub(super) tile: usize,
    pub(super) len: usize,
}

impl Tiling {
    /// Tiles that cover the result.
    pub(super) fn new(g: &Geometry) -> Self {
        Self { batch: g.batch, grid: g.out_size.map(|size| size.div_ceil(EDGE)) }
    }

    /// Number of tiles.
    pub(super) fn count(&self) -> usize {
        self.batch * self.grid[0] * self.grid[1]
    }

    /// Cuts `tiles` at the ends of rows and into pieces of at most `longest`.
    pub(super) fn segments(&self, tiles: Range<usize>, longest: usize) -> impl Iterator<Item = Segment> {
        let [rows, columns] = self.grid;
        let mut tile = tiles.start;
        std::iter::from_fn(move || {
            (tile < tiles.end).then(|| {
                let (row, x) = (tile / columns, tile % columns);
                let len = (columns - x).min(tiles.end - tile).min(longest);
                let segment = Segment { image: row / rows, y: row % rows, x, tile, len };
                tile += len;
                segment
            })
        })
    }
}
