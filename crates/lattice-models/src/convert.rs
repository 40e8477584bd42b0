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

/// The rows of some tensors of one type one after another.
pub(crate) fn concat_rows(parts: &[Weight]) -> Result<Weight> {
    let Some(first) = parts.first() else { candle_core::bail!("nothing to join") };
    let Some((_, rest)) = first.dims().split_first() else { candle_core::bail!("scalars cannot be joined") };
    let fits =
        |w: &Weight| w.dims().split_first().is_some_and(|(_, r)| r == rest) && w.dtype() == first.dtype();
    if let Some(odd) = parts.iter().find(|w| !fits(w) || w.scale() != first.scale()) {
        candle_core::bail!("{odd:?} cannot be joined to {first:?}: other row shape, type or scale")
    }
    let mut shape = first.dims().to_vec();
    shape[0] = parts.iter().map(|w| w.dims()[0]).sum();
    let bytes: Vec<u8> = parts.iter().flat_map(|w| w.bytes().iter().copied()).collect();
    Weight::new(first.dtype(), shape, bytes.into(), first.scale())
}
