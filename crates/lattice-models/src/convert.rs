//! Rearranging stored tensors without changing their type.

use candle_core::Result;
use lattice_weights::Weight;

/// The transpose of a matrix, in its stored type.
pub(crate) fn transpose(weight: &Weight) -> Result<Weight> {
    let &[rows, columns] = weight.dims() else {
        candle_core::bail!("only matrices can be transposed, not shape {:?}", weight.dims())
    };
    let (size, source) = (weight.dtype().size(), weight.bytes());
    if source.len() != rows * columns * size {
        candle_core::bail!("quantised matrices cannot be transposed")
    }
    let mut bytes = Vec::with_capacity(source.len());
    for column in 0..columns {
        for row in 0..rows {
            let start = (row * columns + column) * size;
            bytes.extend_from_slice(&source[start..start + size]);
        }
    }
    Weight::new(weight.dtype(), (columns, rows), bytes.into(), weight.scale())
}
