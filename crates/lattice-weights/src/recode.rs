//! Stored elements in another storage type, a piece at a time.

use std::io::{Error, ErrorKind, Result, Write};

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use lattice_kernels::quant::BlockType;
use lattice_kernels::{StoredDType, Weight};

use crate::rounding::encode;

/// Elements widened at a time: whole blocks of every block type.
const PIECE: usize = 1 << 16;

/// Writes a weight's elements as `dtype`, rounded to nearest; blocks as the GGML library makes them. Bytes that are of that type already go
/// through as they are; a scale is then left to the caller, and multiplied in otherwise.
///
/// # Errors
/// If the sink refuses; if the rows are no whole number of the type's blocks; if a type of 8 bits or less meets values that are not
/// finite or beyond its largest.
pub fn recode(weight: &Weight, dtype: StoredDType, out: &mut dyn Write) -> Result<()> {
    if weight.dtype() == dtype {
        return out.write_all(weight.bytes());
    }
    let invalid = |detail: String| Error::new(ErrorKind::InvalidInput, detail);
    let row = weight.dims().last().copied().unwrap_or(1);
    if !row.is_multiple_of(dtype.block_len()) {
        return Err(invalid(format!("rows of {row} elements are no whole number of {dtype} blocks")));
    }
    let limit = match dtype {
        StoredDType::F8E4M3 => 448.0,
        StoredDType::F8E5M2 => 57344.0,
        StoredDType::Block(_) => f32::MAX,
        _ => f32::INFINITY,
    };
    let count = weight.elem_count();
    let mut values = vec![0f32; PIECE.min(count)];
    for start in (0..count).step_by(PIECE) {
        let piece = &mut values[..PIECE.min(count - start)];
        weight.read_f32(start, piece);
        if limit < f32::INFINITY
            && let Some(odd) = piece.iter().find(|v| v.is_nan() || v.abs() > limit)
        {
            return Err(invalid(format!("holds {odd}, which {dtype} cannot")));
        }
        match dtype {
            StoredDType::Block(block) => out.write_all(&quantized(piece, block)?)?,
            plain => out.write_all(&encode(piece, plain).unwrap_or_default())?,
        }
    }
    Ok(())
}

/// Whole blocks of quantised values.
fn quantized(values: &[f32], block: BlockType) -> Result<Vec<u8>> {
    let ggml = match block {
        BlockType::Q4_0 => GgmlDType::Q4_0,
        BlockType::Q4_1 => GgmlDType::Q4_1,
        BlockType::Q5_0 => GgmlDType::Q5_0,
        BlockType::Q5_1 => GgmlDType::Q5_1,
        BlockType::Q8_0 => GgmlDType::Q8_0,
        BlockType::Q2K => GgmlDType::Q2K,
        BlockType::Q3K => GgmlDType::Q3K,
        BlockType::Q4K => GgmlDType::Q4K,
        BlockType::Q5K => GgmlDType::Q5K,
        BlockType::Q6K => GgmlDType::Q6K,
    };
    let made = Tensor::from_slice(values, values.len(), &Device::Cpu)
        .and_then(|tensor| QTensor::quantize(&tensor, ggml))
        .and_then(|quantized| quantized.data().map(std::borrow::Cow::into_owned));
    made.map_err(Error::other)
}
