//! Positions of image tokens.

use crate::network::ReferencePlacement;

/// Grid of a latent's patches and where it starts: (index, rows, columns, first row, first column).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grid {
    pub(super) index: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) top: usize,
    pub(super) left: usize,
}

impl Grid {
    /// (index, row, column) of each patch, row by row.
    pub(super) fn positions(self) -> impl Iterator<Item = [f64; 3]> {
        let position = move |i: usize| {
            let (row, column) = (i / self.columns, i % self.columns);
            [self.index as f64, (self.top + row) as f64, (self.left + column) as f64]
        };
        (0..self.rows * self.columns).map(position)
    }
}

/// Grids of reference latents of the given heights and widths beside a picture of `picture` cells, for patches `patch`
/// wide. Sizes are in latent cells; what is placed starts at whole patches.
pub(super) fn place(
    picture: (usize, usize),
    references: &[(usize, usize)],
    placement: ReferencePlacement,
    patch: usize,
) -> Vec<Grid> {
    // Extent of what has been placed, beyond which the next one may start.
    let (mut height, mut width) = match placement {
        ReferencePlacement::Diagonal => {
            (picture.0.next_multiple_of(patch), picture.1.next_multiple_of(patch))
        }
        _ => (0, 0),
    };
    let mut grids = vec![];
    for (i, &(h, w)) in references.iter().enumerate() {
        let (index, top, left) = match placement {
            ReferencePlacement::Index => (i + 1, 0, 0),
            ReferencePlacement::Offset => {
                let (top, left) = if h + height > w + width { (0, width) } else { (height, 0) };
                height = height.max(h + top);
                width = width.max(w + left);
                (1, top, left)
            }
            ReferencePlacement::Diagonal => {
                let start = (0, height, width);
                height += h;
                width += w;
                start
            }
        };
        grids.push(Grid {
            index,
            rows: h.div_ceil(patch),
            columns: w.div_ceil(patch),
            top: (top + patch / 2) / patch,
            left: (left + patch / 2) / patch,
        });
    }
    grids
}
