//! Grey morphology with flat square kernels: the greatest or smallest value around each pixel.

use std::collections::VecDeque;

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use crate::tensor;

/// A morphological operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Smallest value around.
    Erode,
    /// Greatest value around.
    Dilate,
    /// Erode, then dilate.
    Open,
    /// Dilate, then erode.
    Close,
    /// Dilated minus eroded.
    Gradient,
    /// Closed minus the image.
    BottomHat,
    /// The image minus opened.
    TopHat,
}

impl std::str::FromStr for Operation {
    type Err = candle_core::Error;

    fn from_str(name: &str) -> Result<Self> {
        Ok(match name {
            "erode" => Self::Erode,
            "dilate" => Self::Dilate,
            "open" => Self::Open,
            "close" => Self::Close,
            "gradient" => Self::Gradient,
            "bottom_hat" => Self::BottomHat,
            "top_hat" => Self::TopHat,
            _ => bail!("unknown morphological operation {name:?}"),
        })
    }
}

/// Applies an operation with a `size` x `size` kernel to planes `[B, C, H, W]`; pixels outside are ignored. An even
/// kernel reaches one pixel further up and left than down and right.
///
/// # Errors
/// If the size is zero.
pub fn morphology(planes: &Tensor, operation: Operation, size: usize) -> Result<Tensor> {
    let dilate = |t: &Tensor| extremum(t, size, |a, b| a > b);
    let erode = |t: &Tensor| extremum(t, size, |a, b| a < b);
    match operation {
        Operation::Erode => erode(planes),
        Operation::Dilate => dilate(planes),
        Operation::Open => dilate(&erode(planes)?),
        Operation::Close => erode(&dilate(planes)?),
        Operation::Gradient => dilate(planes)? - erode(planes)?,
        Operation::BottomHat => erode(&dilate(planes)?)? - planes,
        Operation::TopHat => planes - dilate(&erode(planes)?)?,
    }
}

/// The extremum (`wins(a, b)`: a is more extreme than b) over the square around each pixel, rows first, then columns.
pub(crate) fn extremum(
    planes: &Tensor,
    size: usize,
    wins: impl Fn(f32, f32) -> bool + Sync,
) -> Result<Tensor> {
    if size == 0 {
        bail!("a kernel needs at least one pixel")
    }
    let (h, w) = (planes.dim(planes.rank() - 2)?, planes.dim(planes.rank() - 1)?);
    let mut data = tensor::to_vec(planes)?;
    if !data.is_empty() {
        data.par_chunks_exact_mut(h * w).for_each(|plane| {
            for row in plane.chunks_exact_mut(w) {
                let line: Vec<f32> = sliding(row.iter().copied(), size, &wins);
                row.copy_from_slice(&line);
            }
            for x in 0..w {
                let line = sliding(plane[x..].iter().step_by(w).copied(), size, &wins);
                plane[x..].iter_mut().step_by(w).zip(line).for_each(|(o, v)| *o = v);
            }
        });
    }
    tensor::from_vec(data, planes.dims(), planes)
}

/// Extremum over the window [i - size / 2, i - size / 2 + size) of a line, cut at its ends; linear in the line's
/// length, with a queue of the candidates that may still win (Lemire, "Streaming maximum-minimum filter", 2006).
fn sliding(line: impl Iterator<Item = f32>, size: usize, wins: &impl Fn(f32, f32) -> bool) -> Vec<f32> {
    let ahead = size - size / 2 - 1;
    let mut candidates: VecDeque<(usize, f32)> = VecDeque::new();
    let mut out = Vec::new();
    let mut emit = |i: usize, candidates: &mut VecDeque<(usize, f32)>| {
        while candidates.len() > 1 && candidates.front().is_some_and(|&(at, _)| at + size / 2 < i) {
            candidates.pop_front();
        }
        out.extend(candidates.front().map(|&(_, v)| v));
    };
    let mut count = 0;
    for (i, v) in line.enumerate() {
        while candidates.back().is_some_and(|&(_, old)| !wins(old, v)) {
            candidates.pop_back();
        }
        candidates.push_back((i, v));
        if i >= ahead {
            emit(i - ahead, &mut candidates);
        }
        count = i + 1;
    }
    for i in count.saturating_sub(ahead)..count {
        emit(i, &mut candidates);
    }
    out
}
