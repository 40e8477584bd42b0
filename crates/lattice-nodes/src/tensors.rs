//! Tensors of sizes that users name.

use candle_core::{Device, Tensor};

use crate::{Error, Result};

/// A tensor of that shape filled with one value.
///
/// # Errors
/// If there is no memory for it; the process would end otherwise.
pub(crate) fn filled(shape: &[usize], value: f32) -> Result<Tensor> {
    let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    let mut data: Vec<f32> = Vec::new();
    match count {
        Some(n) if data.try_reserve_exact(n).is_ok() => data.resize(n, value),
        _ => return Err(Error::OutOfMemory(format!("no memory for a tensor of shape {shape:?}"))),
    }
    Ok(Tensor::from_vec(data, shape, &Device::Cpu)?)
}
