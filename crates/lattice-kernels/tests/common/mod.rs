//! What the tests of the layers share.
#![allow(dead_code)] // each test binary uses its part

#[path = "../../src/testing.rs"]
mod testing;

use bytes::Bytes;
use candle_core::{Device, Tensor};
use half::{bf16, f16};
use lattice_kernels::{StoredDType, Weight};
use proptest::test_runner::TestCaseError;
pub(crate) use testing::values;

/// A weight of random values in a stored dtype, and the values it stands for. `misaligned` bytes start at an odd
/// address, as they may in a mapped file.
pub(crate) fn stored(
    dtype: StoredDType,
    dims: &[usize],
    scale: Option<f32>,
    misaligned: bool,
    seed: u32,
) -> (Weight, Vec<f32>) {
    let v = values(dims.iter().product(), seed);
    let mut bytes: Vec<u8> = match dtype {
        StoredDType::F64 => v.iter().flat_map(|&x| f64::from(x).to_le_bytes()).collect(),
        StoredDType::F16 => v.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
        StoredDType::BF16 => v.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
        // Any byte of an 8-bit float without NaN or large exponent will do.
        StoredDType::F8E4M3 => v.iter().map(|&x| (x.to_bits() >> 13) as u8 & 0xbf).collect(),
        StoredDType::F8E5M2 => v.iter().map(|&x| (x.to_bits() >> 13) as u8 & 0xbf).collect(),
        // Any bytes are blocks, but their factors, halves at either end, must not be large or NaN.
        StoredDType::Block(block) => {
            let raw = values(v.len() / block.len() * block.bytes(), seed.wrapping_add(7));
            let mut raw: Vec<u8> = raw.iter().map(|x| (x.to_bits() >> 9) as u8).collect();
            for block in raw.chunks_exact_mut(block.bytes()) {
                let end = block.len();
                for at in [1, 3, end - 3, end - 1] {
                    block[at] &= 0x2f;
                }
            }
            raw
        }
        _ => v.iter().flat_map(|&x| x.to_le_bytes()).collect(),
    };
    let bytes = if misaligned {
        bytes.insert(0, 0);
        Bytes::from(bytes).slice(1..)
    } else {
        Bytes::from(bytes)
    };
    let weight = Weight::new(dtype, dims, bytes, scale).unwrap();
    let values = weight.to_f32();
    (weight, values)
}

/// x, lying in row-major order or with its second and last axis exchanged in memory.
pub(crate) fn laid_out(x: &[f32], dims: &[usize], transposed: bool) -> Tensor {
    let t = Tensor::from_slice(x, dims, &Device::Cpu).unwrap();
    let last = dims.len() - 1;
    if transposed {
        t.transpose(1, last).unwrap().contiguous().unwrap().transpose(1, last).unwrap()
    } else {
        t
    }
}

/// Every element within `tolerance` times the largest magnitude (at least 1).
pub(crate) fn assert_close(got: &Tensor, want: &[f64], tolerance: f64) -> Result<(), TestCaseError> {
    let got: Vec<f32> = got.flatten_all().unwrap().to_vec1().unwrap();
    proptest::prop_assert_eq!(got.len(), want.len());
    let scale = want.iter().fold(1.0f64, |m, v| m.max(v.abs()));
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        proptest::prop_assert!(
            (f64::from(g) - w).abs() <= tolerance * scale,
            "element {i}: {g} instead of {w} (largest {scale})"
        );
    }
    Ok(())
}
