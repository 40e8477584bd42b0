//! Between candle's tensors and the kernels' slices.

use std::cell::Cell;

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Shape, Storage, Tensor, bail};

use crate::scratch::uninit_vec;

/// Calls `f` with the elements of an f32 CPU tensor in row-major order (copied first only if they lie otherwise).
pub(crate) fn with_slice<T>(x: &Tensor, f: impl FnOnce(&[f32]) -> Result<T>) -> Result<T> {
    let x = x.contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    let Storage::Cpu(CpuStorage::F32(all)) = &*storage else {
        bail!("the CPU kernels take f32 tensors, got {:?} on {:?}", x.dtype(), x.device())
    };
    let start = layout.start_offset();
    f(&all[start..start + x.elem_count()])
}

/// Calls `f` with the elements of an f32 CPU tensor of N + 1 axes, from its first on, and the steps of its first N axes;
/// the last axis lies contiguously (the tensor is copied first only if it does not). Views of rows, such as the parts
/// of a joint projection, and broadcast axes (step 0) stay as they are.
pub(crate) fn with_rows<const N: usize, T>(
    x: &Tensor,
    f: impl FnOnce(&[f32], [usize; N]) -> Result<T>,
) -> Result<T> {
    let x = if x.stride().last() == Some(&1) { x.clone() } else { x.contiguous()? };
    let (storage, layout) = x.storage_and_layout();
    let Storage::Cpu(CpuStorage::F32(all)) = &*storage else {
        bail!("the CPU kernels take f32 tensors, got {:?} on {:?}", x.dtype(), x.device())
    };
    let Some((steps, _)) = layout.stride().split_first_chunk::<N>() else {
        bail!("{} axes where {} are needed", x.rank(), N + 1)
    };
    // A view without elements may start anywhere.
    f(all.get(layout.start_offset()..).unwrap_or_default(), *steps)
}

/// Whether the kernels of this crate run the tensor's operations; on other devices candle's own do.
pub(crate) fn on_cpu(x: &Tensor) -> bool {
    x.device().is_cpu()
}

/// A new tensor on the CPU whose elements `fill` writes.
///
/// # Safety
/// `fill` writes every element before reading any.
pub(crate) unsafe fn filled(
    shape: impl Into<Shape>,
    like: &Tensor,
    fill: impl FnOnce(&mut [f32]),
) -> Result<Tensor> {
    let shape = shape.into();
    // SAFETY: the caller's promise.
    let data = unsafe { uninit_vec(shape.elem_count(), fill) };
    Tensor::from_vec(data, shape, like.device())
}

/// Hands the elements of an f32 CPU tensor, which lie in row-major order, to `f` to be changed where they are. Views that
/// share its memory would change too, so the tensor is one that was just made.
pub(crate) fn changed(x: Tensor, f: impl FnOnce(&mut [f32])) -> Result<Tensor> {
    struct Change<F>(Cell<Option<F>>);
    impl<F: FnOnce(&mut [f32])> InplaceOp1 for Change<F> {
        fn name(&self) -> &'static str {
            "change"
        }

        fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
            let (CpuStorage::F32(all), Some((start, end)), Some(f)) =
                (storage, layout.contiguous_offsets(), self.0.take())
            else {
                bail!("only f32 tensors in row-major order are changed in place")
            };
            f(&mut all[start..end]);
            Ok(())
        }
    }
    // A tensor without elements may have any steps, and candle refuses some of them.
    if x.elem_count() > 0 {
        x.inplace_op1(&Change(Cell::new(Some(f))))?;
    }
    Ok(x)
}
