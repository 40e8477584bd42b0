//! f32 values as stored elements: nearest even everywhere, stochastic for patched 8-bit floats.

mod mt19937;
mod stochastic;

use bytes::Bytes;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use lattice_kernels::StoredDType;

pub use stochastic::{seed_of_name, stochastic_fp8};

/// The little-endian bytes of `values` in a storage type, rounded to nearest even as PyTorch does: floats beyond the largest value become
/// infinite (NaN in e4m3fn, which has no infinity), integers saturate.
///
/// `None` for block types, whose elements are not independent.
pub fn encode(values: &[f32], dtype: StoredDType) -> Option<Bytes> {
    fn each<const N: usize>(values: &[f32], f: impl Fn(f32) -> [u8; N]) -> Bytes {
        let mut out = Vec::with_capacity(values.len() * N);
        for &v in values {
            out.extend_from_slice(&f(v));
        }
        out.into()
    }
    Some(match dtype {
        StoredDType::F64 => each(values, |v| f64::from(v).to_le_bytes()),
        StoredDType::F32 => each(values, f32::to_le_bytes),
        StoredDType::F16 => halves(values),
        StoredDType::BF16 => each(values, |v| bf16::from_f32(v).to_le_bytes()),
        StoredDType::F8E4M3 => each(values, |v| [f8e4m3_from_f32(v)]),
        StoredDType::F8E5M2 => each(values, |v| [f8e5m2_from_f32(v)]),
        StoredDType::I64 => each(values, |v| (v as i64).to_le_bytes()),
        StoredDType::I32 => each(values, |v| (v as i32).to_le_bytes()),
        StoredDType::I16 => each(values, |v| (v as i16).to_le_bytes()),
        StoredDType::I8 => each(values, |v| (v as i8).to_le_bytes()),
        StoredDType::U64 => each(values, |v| (v as u64).to_le_bytes()),
        StoredDType::U32 => each(values, |v| (v as u32).to_le_bytes()),
        StoredDType::U16 => each(values, |v| (v as u16).to_le_bytes()),
        StoredDType::U8 => each(values, |v| [v as u8]),
        StoredDType::Bool => each(values, |v| [u8::from(v != 0.0)]),
        StoredDType::Block(_) => return None,
    })
}

/// In pieces through the processor's conversion instructions, which `half` uses for slices.
fn halves(values: &[f32]) -> Bytes {
    let mut out = Vec::with_capacity(values.len() * 2);
    let mut piece = [f16::ZERO; 1024];
    for chunk in values.chunks(piece.len()) {
        let piece = &mut piece[..chunk.len()];
        piece.convert_from_f32_slice(chunk);
        let bits: &mut [u16] = piece.reinterpret_cast_mut();
        for b in bits.iter_mut() {
            *b = b.to_le();
        }
        out.extend_from_slice(bytemuck::cast_slice(bits));
    }
    out.into()
}

/// `magnitude * 2^shift` rounded to the nearest integer, ties to even. The product is small, and the power of two a normal number.
fn steps(magnitude: f32, shift: i32) -> i32 {
    // From here on singles are integers, so the sum rounds by itself.
    const INTEGERS: f32 = 8_388_608.0;
    let scaled = magnitude * f32::from_bits(((127 + shift) as u32) << 23);
    ((scaled + INTEGERS) - INTEGERS) as i32
}

/// Nearest e4m3fn value, ties to even; from halfway beyond the largest (448) on NaN.
pub fn f8e4m3_from_f32(v: f32) -> u8 {
    let sign = ((v.to_bits() >> 24) & 0x80) as u8;
    let magnitude = v.abs();
    if magnitude.is_nan() || magnitude > 464.0 {
        return sign | 0x7f;
    }
    // Steps of 2^-9 below 2^-6, else an eighth of the power of two below.
    let exponent = (((magnitude.to_bits() >> 23) as i32) - 127).max(-6);
    let steps = steps(magnitude, 3 - exponent);
    // A rounding up to the next power of two carries into the exponent by itself. The first power has no hidden bit.
    sign | ((exponent + 6) * 8 + steps) as u8
}

/// Nearest e5m2 value, ties to even; beyond the largest infinite.
pub fn f8e5m2_from_f32(v: f32) -> u8 {
    if v.is_nan() {
        return ((v.to_bits() >> 24) & 0x80) as u8 | 0x7f;
    }
    // An e5m2 is the upper half of an f16, but rounding twice could go wrong, so the steps are counted in f32.
    let sign = ((v.to_bits() >> 24) & 0x80) as u8;
    let magnitude = v.abs();
    if magnitude >= 61440.0 {
        return sign | 0x7c;
    }
    let exponent = (((magnitude.to_bits() >> 23) as i32) - 127).max(-14);
    let steps = steps(magnitude, 2 - exponent);
    sign | ((exponent + 14) * 4 + steps) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use lattice_kernels::Weight;
    use proptest::prelude::*;

    /// All 256 values of an 8-bit type.
    fn table(dtype: StoredDType) -> Vec<f32> {
        Weight::new(dtype, 256, (0..=255).collect::<Vec<u8>>().into(), None).unwrap().to_f32()
    }

    #[test]
    fn every_8_bit_value_encodes_to_itself() {
        for (dtype, encode) in
            [(StoredDType::F8E4M3, f8e4m3_from_f32 as fn(f32) -> u8), (StoredDType::F8E5M2, f8e5m2_from_f32)]
        {
            for (bits, v) in table(dtype).into_iter().enumerate() {
                let back = encode(v);
                assert!(v.is_nan() || usize::from(back) == bits, "{dtype} {bits:#x} = {v}: {back:#x}");
            }
        }
    }

    proptest! {
        #[test]
        fn encoding_8_bits_is_nearest(v in prop_oneof![-500f32..500.0, -0.02f32..0.02, -6e4f32..6e4]) {
            for (dtype, encode, largest) in [
                (StoredDType::F8E4M3, f8e4m3_from_f32 as fn(f32) -> u8, 448.0),
                (StoredDType::F8E5M2, f8e5m2_from_f32, 57344.0),
            ] {
                let values = table(dtype);
                let got = values[usize::from(encode(v))];
                if v.abs() <= largest {
                    let best = values.iter().filter(|c| c.is_finite()).map(|c| (c - v).abs()).fold(f32::MAX, f32::min);
                    prop_assert_eq!((got - v).abs(), best, "{} as {}", v, dtype);
                }
            }
        }
    }
}
