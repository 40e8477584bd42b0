//! Weighted sums of tensors, the arithmetic that solvers are made of.

use candle_core::{CpuStorage, DType, Device, Error, Result, Storage, Tensor};
use rayon::prelude::*;

/// Elements whose double-precision sums fit the first-level cache.
const BLOCK: usize = 1024;
/// Below this many elements threads cost more than they save.
const PARALLEL_FROM: usize = 1 << 16;

/// sum_k c_k x_k over tensors of one shape, in one pass and one allocation.
///
/// On the CPU single-precision terms are summed in double precision and rounded once; elsewhere the sum is made of the
/// device's own operations. No terms, or terms of different shapes, are an error.
pub fn lincomb(terms: &[(f64, &Tensor)]) -> Result<Tensor> {
    let Some(((scale, first), rest)) = terms.split_first() else {
        return Err(Error::Msg("a weighted sum of no tensors".into()));
    };
    for (_, tensor) in rest {
        if tensor.shape() != first.shape() {
            return Err(Error::ShapeMismatchBinaryOp {
                lhs: first.shape().clone(),
                rhs: tensor.shape().clone(),
                op: "lincomb",
            });
        }
    }
    if plain(terms.iter().map(|(_, t)| *t)) {
        return lincomb_cpu(terms);
    }
    let mut sum = first.affine(*scale, 0.0)?;
    for (scale, tensor) in rest {
        sum = (sum + tensor.affine(*scale, 0.0)?)?;
    }
    Ok(sum)
}

/// Whether all are single precision on the CPU.
fn plain<'t>(tensors: impl IntoIterator<Item = &'t Tensor>) -> bool {
    tensors.into_iter().all(|t| matches!(t.device(), Device::Cpu) && t.dtype() == DType::F32)
}

fn lincomb_cpu(terms: &[(f64, &Tensor)]) -> Result<Tensor> {
    let tensors: Vec<&Tensor> = terms.iter().map(|(_, t)| *t).collect();
    elementwise(&tensors, |slices, start, out| {
        let mut sums = [0f64; BLOCK];
        let sums = &mut sums[..out.len()];
        for ((scale, _), data) in terms.iter().zip(slices) {
            let data = &data[start..][..out.len()];
            sums.iter_mut().zip(data).for_each(|(s, x)| *s += scale * f64::from(*x));
        }
        out.iter_mut().zip(sums).for_each(|(o, s)| *o = *s as f32);
    })
}

/// f(x_1, ..., x_N) of every element, in one pass and one allocation, for single precision on the CPU; elsewhere what `otherwise` makes.
///
/// Where a solver's decisions hang on roundings, `f` rounds as the reference does: after every operation.
pub(crate) fn map_elements<const N: usize>(
    tensors: [&Tensor; N],
    f: impl Fn([f32; N]) -> f32 + Sync,
    otherwise: impl FnOnce() -> Result<Tensor>,
) -> Result<Tensor> {
    let same = tensors.iter().all(|t| t.shape() == tensors[0].shape());
    if !(same && plain(tensors)) {
        return otherwise();
    }
    elementwise(&tensors, |slices, start, out| {
        for (i, out) in out.iter_mut().enumerate() {
            *out = f(std::array::from_fn(|k| slices[k][start + i]));
        }
    })
}

/// Fills the blocks of a new tensor: `block` is given the elements of all tensors, where it starts, and its elements.
fn elementwise(tensors: &[&Tensor], block: impl Fn(&[&[f32]], usize, &mut [f32]) + Sync) -> Result<Tensor> {
    let tensors = tensors.iter().map(|t| t.contiguous()).collect::<Result<Vec<_>>>()?;
    let guards: Vec<_> = tensors.iter().map(Tensor::storage_and_layout).collect();
    let mut slices: Vec<&[f32]> = Vec::with_capacity(tensors.len());
    for (storage, layout) in &guards {
        let (Storage::Cpu(CpuStorage::F32(data)), Some((start, end))) =
            (&**storage, layout.contiguous_offsets())
        else {
            return Err(Error::Msg("a contiguous f32 tensor was expected".into()));
        };
        slices.push(&data[start..end]);
    }
    let shape = tensors[0].shape().clone();
    let mut out = vec![0f32; shape.elem_count()];
    let fill = |(index, out): (usize, &mut [f32])| block(&slices, index * BLOCK, out);
    if out.len() < PARALLEL_FROM {
        out.chunks_mut(BLOCK).enumerate().for_each(fill);
    } else {
        out.par_chunks_mut(BLOCK).enumerate().for_each(fill);
    }
    Tensor::from_vec(out, shape, &Device::Cpu)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn equals_the_plain_sum(
            rows in 1usize..40,
            columns in 1usize..70,
            scales in prop::collection::vec(-3.0f64..3.0, 1..5),
        ) {
            let count = rows * columns;
            let terms: Vec<Tensor> = (0..scales.len())
                .map(|k| {
                    let data: Vec<f32> = (0..count).map(|i| ((i * 7 + k * 13) % 31) as f32 - 15.0).collect();
                    // A transposed view: the fast path must follow strides.
                    Tensor::from_vec(data, (columns, rows), &Device::Cpu).and_then(|t| t.t())
                })
                .collect::<Result<_>>()
                .unwrap();
            let pairs: Vec<(f64, &Tensor)> = scales.iter().copied().zip(&terms).collect();
            let got = lincomb(&pairs).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let rows_of = |t: &Tensor| t.contiguous().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let data: Vec<Vec<f32>> = terms.iter().map(rows_of).collect();
            for (i, value) in got.iter().enumerate() {
                let want: f64 = scales.iter().zip(&data).map(|(c, d)| c * f64::from(d[i])).sum();
                prop_assert_eq!(*value, want as f32);
            }
        }
    }

    #[test]
    fn large_sums_use_every_block() -> Result<()> {
        let x = Tensor::arange(0f32, 200_001.0, &Device::Cpu)?;
        let sum = lincomb(&[(2.0, &x), (-1.0, &x)])?;
        assert_eq!(sum.to_vec1::<f32>()?, x.to_vec1::<f32>()?);
        Ok(())
    }

    #[test]
    fn nonsense_is_an_error() -> Result<()> {
        let (a, b) =
            (Tensor::zeros(3, DType::F32, &Device::Cpu)?, Tensor::zeros(4, DType::F32, &Device::Cpu)?);
        assert!(lincomb(&[]).is_err());
        assert!(lincomb(&[(1.0, &a), (1.0, &b)]).is_err());
        assert_eq!(lincomb(&[(f64::NAN, &a.narrow(0, 0, 0)?)])?.dims(), [0]);
        Ok(())
    }
}
