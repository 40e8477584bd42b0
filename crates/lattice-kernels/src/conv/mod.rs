//! 2-D convolution (cross-correlation) over stored weights, without a matrix of patches in memory.

mod direct;
mod geometry;
mod patches;
mod tiles;
mod winograd;

use rayon::prelude::*;

pub(crate) use geometry::Geometry;

use crate::Weight;
use crate::activation::Activation;
use crate::gemm::{Finish, Product, split};
use crate::scratch::SharedMut;
use crate::simd::MAX_NR;
use crate::stored::StoredRows;
use patches::Patches;

/// out = x * w + bias: x [batch, in, h, w] and out [batch, out, h', w'] as `g` says, w [out, in / groups, kh, kw] as
/// stored, bias [out].
///
/// `out` is written without being read.
pub(crate) fn conv2d(g: &Geometry, x: &[f32], weight: &Weight, bias: Option<&[f32]>, out: &mut [f32]) {
    if out.is_empty() {
        return;
    }
    if direct::suits(g) {
        direct::conv2d(g, x, weight, bias, out);
    } else if winograd::suits(g) {
        winograd::conv2d(g, x, weight, bias, out);
    } else {
        implicit_gemm(g, x, weight, bias, out);
    }
}

/// Each image's result is the product of the weight [out, in kh kw] with the matrix of its patches [in kh kw, h' w']
/// (Chellapilla et al. 2006), whose panels are gathered where the product packs them (Chetlur et al. 2014).
fn implicit_gemm(g: &Geometry, x: &[f32], weight: &Weight, bias: Option<&[f32]>, out: &mut [f32]) {
    let (inputs, outputs) = (g.inputs / g.groups, g.outputs / g.groups);
    let pixels = g.out_size[0] * g.out_size[1];
    let k = inputs * g.kernel[0] * g.kernel[1];
    let shared = SharedMut::new(out);
    let parts = g.batch * g.groups;
    let (rows, columns) = grid(parts, outputs, pixels, k);
    let mut tasks = Vec::with_capacity(parts * rows * columns);
    for part in 0..parts {
        for c in split(pixels, columns, MAX_NR) {
            tasks.extend(split(outputs, rows, 1).map(|r| (part, r, c.clone())));
        }
    }
    tasks.into_par_iter().for_each(|(part, rows, columns)| {
        let (image, group) = (part / g.groups, part % g.groups);
        let first = image * g.inputs + group * inputs;
        let plane = g.size[0] * g.size[1];
        Product {
            m: outputs,
            n: pixels,
            k,
            left: &StoredRows::new(weight, k, group * outputs),
            right: &Patches::new(g, &x[first * plane..(first + inputs) * plane]),
            row_bias: bias.map(|b| &b[group * outputs..(group + 1) * outputs]),
            col_bias: None,
            residual: None,
            finish: Finish::Activation(Activation::None),
            out: shared.skip((image * g.outputs + group * outputs) * pixels),
            ld_out: pixels,
        }
        .block(rows, columns);
    });
}

/// Into how many parts the channels and the pixels of each of `parts` results are cut for the thread pool: pixels first,
/// since a part of the channels gathers its patches anew.
fn grid(parts: usize, outputs: usize, pixels: usize, k: usize) -> (usize, usize) {
    // Below this many multiply-adds a task costs more to hand over than to compute.
    const SMALL: usize = 1 << 19;
    // Fewer pixels (channels) per task would make packing the other operand show.
    const PIXELS: usize = 256;
    const CHANNELS: usize = 64;
    let threads = rayon::current_num_threads();
    if threads == 1 {
        return (1, 1);
    }
    let work = parts.saturating_mul(outputs).saturating_mul(pixels).saturating_mul(k) / SMALL;
    let tasks = |per_thread: usize, given: usize| (per_thread * threads).min(work.max(1)).div_ceil(given);
    // A few tasks per thread even out cores that are slowed down by others.
    let columns = (pixels / PIXELS).clamp(1, tasks(4, parts));
    let rows = (outputs / CHANNELS).clamp(1, tasks(1, parts * columns));
    (rows, columns)
}

#[cfg(test)]
mod tests;
