//! Moving f32 numbers between tensors and plain vectors.

use candle_core::{DType, Device, Result, Shape, Tensor, bail};

/// All elements in row-major order, as f32.
pub(crate) fn to_vec(t: &Tensor) -> Result<Vec<f32>> {
    t.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}

/// A tensor of `data` with the device and dtype of `like`.
pub(crate) fn from_vec(data: Vec<f32>, shape: impl Into<Shape>, like: &Tensor) -> Result<Tensor> {
    Tensor::from_vec(data, shape.into(), &Device::Cpu)?.to_device(like.device())?.to_dtype(like.dtype())
}

/// A vector of `n` copies of `value`, or an error where memory does not suffice: sizes come from users.
pub(crate) fn filled<T: Clone>(dims: &[usize], value: T) -> Result<Vec<T>> {
    let count = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    let mut data = Vec::new();
    match count {
        Some(n) if data.try_reserve_exact(n).is_ok() => data.resize(n, value),
        _ => bail!("no memory for a tensor of shape {dims:?}"),
    }
    Ok(data)
}
