//! Weight-decomposed adapters (DoRA, arXiv 2402.09353): the change gives a direction, stored magnitudes its length.

use super::apply::Parameter;

/// V = W + scale D, brought to the stored magnitudes per output row or per input channel; then W moves towards V by `strength`.
/// `false` (and W unchanged) if the magnitudes fit neither axis.
pub(super) fn decompose(
    w: &mut Parameter,
    delta: &[f32],
    magnitudes: &[f32],
    scale: f64,
    strength: f64,
) -> bool {
    let (rows, columns) = (w.rows(), w.columns());
    let inputs = w.shape.get(1).copied().unwrap_or(1);
    let scale = scale as f32;
    let mut directed: Vec<f32> = w.values.iter().zip(delta).map(|(w, d)| w + scale * d).collect();
    // Which channel an element's norm belongs to, and whose norm is taken: the unpatched weight's over output rows, the
    // patched one's over input channels. Both as the trainers that write such files are read in practice.
    let by_row = magnitudes.len() == rows;
    if !by_row && magnitudes.len() != inputs {
        return false;
    }
    let space = columns / inputs.max(1);
    let channel =
        |index: usize| if by_row { index / columns.max(1) } else { index % columns.max(1) / space.max(1) };
    let mut squares = vec![0f64; magnitudes.len()];
    for (index, &v) in if by_row { &w.values } else { &directed }.iter().enumerate() {
        squares[channel(index)] += f64::from(v).powi(2);
    }
    let factors: Vec<f32> =
        squares.iter().zip(magnitudes).map(|(square, m)| m / (square.sqrt() as f32 + f32::EPSILON)).collect();
    for (index, v) in directed.iter_mut().enumerate() {
        *v *= factors[channel(index)];
    }
    if strength == 1.0 {
        w.values = directed;
    } else {
        let strength = strength as f32;
        w.values.iter_mut().zip(&directed).for_each(|(w, v)| *w += strength * (v - *w));
    }
    true
}
