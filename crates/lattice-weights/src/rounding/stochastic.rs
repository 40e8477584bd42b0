//! Stochastic rounding to 8-bit floats: up or down with a probability given by the distance, so that small patches are not lost
//! on average. Seeded by the parameter's name, hence reproducible. All arithmetic is that of halves.

use std::sync::OnceLock;

use bytes::Bytes;
use half::f16;
use lattice_kernels::StoredDType;

use super::mt19937::Mt19937;
use super::{f8e4m3_from_f32, f8e5m2_from_f32};

/// The seed of a parameter: CRC-32 over the characters' code points, each taken as one (possibly wide) symbol; for ASCII names the
/// ordinary checksum.
pub fn seed_of_name(name: &str) -> u32 {
    let crc = name.chars().fold(u32::MAX, |mut crc, c| {
        crc ^= u32::from(c);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        }
        crc
    });
    !crc
}

/// An 8-bit type's layout.
struct Format {
    exponent_bits: i32,
    mantissa_bits: i32,
    bias: i32,
    largest: f32,
    store: fn(f32) -> u8,
}

const E4M3: Format =
    Format { exponent_bits: 4, mantissa_bits: 3, bias: 7, largest: 448.0, store: f8e4m3_from_f32 };
const E5M2: Format =
    Format { exponent_bits: 5, mantissa_bits: 2, bias: 15, largest: 57344.0, store: f8e5m2_from_f32 };

/// Rounds `values` to `dtype` (one of the two 8-bit floats, else `None`); `seed` as [`seed_of_name`] gives it.
pub fn stochastic_fp8(values: &[f32], dtype: StoredDType, seed: u32) -> Option<Bytes> {
    let format = match dtype {
        StoredDType::F8E4M3 => &E4M3,
        StoredDType::F8E5M2 => &E5M2,
        _ => return None,
    };
    let mut generator = Mt19937::new(seed);
    // A half's uniform takes the low 11 bits of one word.
    let mut uniform = || (generator.word() & 0x7ff) as f32 / 2048.0;
    let rounded: Vec<u8> =
        values.iter().map(|&v| (format.store)(format.round(f16::from_f32(v), uniform()))).collect();
    Some(rounded.into())
}

impl Format {
    fn round(&self, v: f16, u: f32) -> f32 {
        let magnitude = f16::from_bits(v.to_bits() & 0x7fff);
        let exponent = (floor_log2(magnitude) + self.bias).clamp(0, (1 << self.exponent_bits) - 1);
        let a = magnitude.to_f32();
        let steps = 2f32.powi(self.mantissa_bits);
        // Scaling by powers of two and the subtraction are exact in halves; only the sum with u needs rounding.
        let (base, mantissa, hidden) = if exponent == 0 {
            (2f32.powi(1 - self.bias), a / 2f32.powi(1 - self.bias - self.mantissa_bits), 0.0)
        } else {
            let base = 2f32.powi(exponent - self.bias);
            (base, (a / base - 1.0) * steps, 1.0)
        };
        if base > f16::MAX.to_f32() {
            // The power of two is infinite among halves, and what is made with it is not a number. Only e5m2 reaches it, for
            // values next to the end of the halves' range.
            return f32::from_bits(0xffc0_0000);
        }
        let fraction = f16::from_f32(mantissa + u).to_f32().floor() / steps;
        // Zeros lose their sign, as the sign function has it.
        let sign = if a == 0.0 { 0.0 } else { 1f32.copysign(v.to_f32()) };
        (sign * base * (hidden + fraction)).clamp(-self.largest, self.largest)
    }
}

/// floor(log2 a) with the logarithm rounded to a half first, so that values just below a power of two count as it. Zero gives
/// a very small number, infinity and NaN a very large one.
fn floor_log2(a: f16) -> i32 {
    static TABLE: OnceLock<Vec<i8>> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        (0..=0x7fffu16)
            .map(|bits| {
                let log = f16::from_f32(f16::from_bits(bits).to_f32().log2()).to_f32().floor();
                if log.is_nan() { 100 } else { log.clamp(-100.0, 100.0) as i8 }
            })
            .collect()
    });
    i32::from(table[usize::from(a.to_bits() & 0x7fff)])
}
