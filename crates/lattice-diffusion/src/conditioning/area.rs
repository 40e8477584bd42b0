//! Rectangles of a latent.

use candle_core::{Result, Tensor};

/// Where in a latent an entry applies; axes in the order of the latent's last ones (..., rows, columns).
#[derive(Clone, Debug, PartialEq)]
pub enum Area {
    /// In latent cells.
    Cells(Cells),
    /// In shares of the latent's size.
    Fraction {
        /// Sizes.
        size: Vec<f64>,
        /// Offsets.
        offset: Vec<f64>,
    },
}

/// A box of latent cells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cells {
    /// Sizes.
    pub size: Vec<usize>,
    /// Offsets.
    pub offset: Vec<usize>,
}

impl Area {
    /// Rows and columns in pixels of a picture eight times the latent's size.
    pub fn from_pixels(height: usize, width: usize, y: usize, x: usize) -> Self {
        Self::Cells(Cells { size: vec![height / 8, width / 8], offset: vec![y / 8, x / 8] })
    }

    /// The area in cells of a latent with these spatial sizes. Missing leading axes are taken whole, leading axes too
    /// many are dropped.
    pub(super) fn resolve(&self, dims: &[usize]) -> Cells {
        match self {
            Self::Cells(cells) => {
                Cells { size: fit(&cells.size, dims, |dim| dim), offset: fit(&cells.offset, dims, |_| 0) }
            }
            Self::Fraction { size, offset } => {
                let whole = |f: f64, dim: usize| (f * dim as f64).round_ties_even().max(0.0) as usize;
                let scale = |fractions: &[f64], missing: f64| -> Vec<usize> {
                    let fractions = fit(fractions, dims, |_| missing);
                    fractions.iter().zip(dims).map(|(f, dim)| whole(*f, *dim)).collect()
                };
                let size = scale(size, 1.0).into_iter().map(|n| n.max(1)).collect();
                Cells { size, offset: scale(offset, 0.0) }
            }
        }
    }
}

/// The last entries, as many as `dims` has; missing ones in front are given by `missing`.
fn fit<T: Copy>(values: &[T], dims: &[usize], missing: impl Fn(usize) -> T) -> Vec<T> {
    let absent = dims.len().saturating_sub(values.len());
    let kept = &values[values.len() - (dims.len() - absent)..];
    dims[..absent].iter().map(|dim| missing(*dim)).chain(kept.iter().copied()).collect()
}

impl Cells {
    /// Whether `other` lies within.
    pub(super) fn contains(&self, other: &Self) -> bool {
        let axes = self.size.iter().zip(&self.offset).zip(other.size.iter().zip(&other.offset));
        axes.into_iter().all(|((size, offset), (other_size, other_offset))| {
            offset <= other_offset && offset.saturating_add(*size) >= other_offset.saturating_add(*other_size)
        })
    }

    /// Number of cells.
    pub(super) fn volume(&self) -> usize {
        self.size.iter().fold(1, |n, &size| n.saturating_mul(size))
    }

    /// The part within a latent of these sizes; None if nothing is.
    pub(super) fn clip(&self, dims: &[usize]) -> Option<Self> {
        let room = |(dim, offset): (&usize, &usize)| dim.saturating_sub(*offset);
        let rooms = dims.iter().zip(&self.offset).map(room);
        let size: Vec<usize> = rooms.zip(&self.size).map(|(room, size)| room.min(*size)).collect();
        size.iter().all(|&n| n > 0).then(|| Self { size, offset: self.offset.clone() })
    }

    /// The bounding box of what is not zero in a mask [n, h, w]: at least 8 by 8, growing down and right.
    pub(super) fn bounds(mask: &Tensor) -> Result<Self> {
        let (_, height, width) = mask.dims3()?;
        let cells = mask.abs()?.max(0)?.to_vec2::<f32>()?;
        let rows = || (0..height).filter(|&y| cells[y].iter().any(|&v| v != 0.0));
        let columns = || (0..width).filter(|&x| cells.iter().any(|row| row[x] != 0.0));
        let extent = |first: Option<usize>, last: Option<usize>| match (first, last) {
            (Some(first), Some(last)) => ((last - first + 1).max(8), first),
            _ => (8, 0),
        };
        let (height, y) = extent(rows().next(), rows().next_back());
        let (width, x) = extent(columns().next(), columns().next_back());
        Ok(Self { size: vec![height, width], offset: vec![y, x] })
    }

    /// Cuts the box out of [B, C, spatial...].
    pub(super) fn crop(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = x.clone();
        for (axis, (&size, &offset)) in (2..).zip(self.size.iter().zip(&self.offset)) {
            x = x.narrow(axis, offset, size)?;
        }
        x.contiguous()
    }

    /// The box within zeros of the latent's sizes.
    pub(super) fn place(&self, x: &Tensor, dims: &[usize]) -> Result<Tensor> {
        let mut x = x.clone();
        let axes = self.size.iter().zip(&self.offset).zip(dims);
        for (axis, ((&size, &offset), &dim)) in (2..).zip(axes) {
            x = x.pad_with_zeros(axis, offset, dim - offset - size)?;
        }
        Ok(x)
    }

    /// Weights that fade towards edges inside the latent, over at most 8 cells and a quarter of the box; axis by axis,
    /// to be multiplied.
    pub(super) fn feather(&self, dims: &[usize]) -> Vec<Vec<f32>> {
        let axes = self.size.iter().zip(&self.offset).zip(dims);
        axes.map(|((&size, &offset), &dim)| {
            let ramp = (size / 4).min(8);
            let mut weights = vec![1f32; size];
            for t in 0..ramp {
                let weight = (t + 1) as f32 / ramp as f32;
                if offset != 0 {
                    weights[t] *= weight;
                }
                if offset + size < dim {
                    weights[size - 1 - t] *= weight;
                }
            }
            weights
        })
        .collect()
    }
}
