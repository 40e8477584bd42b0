//! Stored elements to f32, branch-free so that compilers turn the loops into vectors.

use half::bf16;

use crate::simd::{Kernel, Simd, dispatch};
use crate::weight::StoredDType;

/// Converts stored little-endian elements to f32. Inlined into kernels, whose instruction set it is then compiled for.
#[inline(always)]
pub(crate) fn widen<S: Simd>(s: S, dtype: StoredDType, src: &[u8], out: &mut [f32]) {
    match dtype {
        StoredDType::F64 => each(src, out, |b| f64::from_le_bytes(b) as f32),
        StoredDType::F32 => each(src, out, f32::from_le_bytes),
        StoredDType::F16 => halves(s, src, out),
        StoredDType::BF16 => each(src, out, |b| bf16::from_le_bytes(b).to_f32()),
        StoredDType::F8E4M3 => each(src, out, |[b]: [u8; 1]| f8e4m3_to_f32(b)),
        StoredDType::F8E5M2 => each(src, out, |[b]: [u8; 1]| f16_to_f32(u16::from(b) << 8)),
        StoredDType::I64 => each(src, out, |b| i64::from_le_bytes(b) as f32),
        StoredDType::I32 => each(src, out, |b| i32::from_le_bytes(b) as f32),
        StoredDType::U64 => each(src, out, |b| u64::from_le_bytes(b) as f32),
        StoredDType::U32 => each(src, out, |b| u32::from_le_bytes(b) as f32),
        StoredDType::U16 => each(src, out, |b| f32::from(u16::from_le_bytes(b))),
        StoredDType::I16 => each(src, out, |b| f32::from(i16::from_le_bytes(b))),
        StoredDType::I8 => each(src, out, |b| f32::from(i8::from_le_bytes(b))),
        StoredDType::U8 | StoredDType::Bool => each(src, out, |[b]: [u8; 1]| f32::from(b)),
        StoredDType::Block(block) => block.widen(src, out),
    }
}

/// [`widen`] compiled for this processor.
pub(crate) fn widen_dispatched(dtype: StoredDType, src: &[u8], out: &mut [f32]) {
    struct Widen<'a>(StoredDType, &'a [u8], &'a mut [f32]);
    impl Kernel for Widen<'_> {
        type Output = ();
        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            widen(s, self.0, self.1, self.2);
        }
    }
    dispatch(Widen(dtype, src, out));
}

#[inline(always)]
fn each<const N: usize>(src: &[u8], out: &mut [f32], f: impl Fn([u8; N]) -> f32) {
    for (o, c) in out.iter_mut().zip(src.as_chunks::<N>().0) {
        *o = f(*c);
    }
}

/// IEEE halves, with the processor's instruction where it has one.
#[inline(always)]
fn halves<S: Simd>(s: S, src: &[u8], out: &mut [f32]) {
    let len = out.len().min(src.len() / 2);
    let whole = len - len % S::LANES;
    for i in (0..whole).step_by(S::LANES) {
        // SAFETY: i + LANES elements of both slices.
        unsafe { s.store(out.as_mut_ptr().add(i), s.load_f16(src.as_ptr().add(2 * i))) };
    }
    each(&src[2 * whole..], &mut out[whole..], |b| f16_to_f32(u16::from_le_bytes(b)));
}

/// IEEE half to single: the magnitude's bits are moved to the single's exponent and mantissa and rescaled by 2^112,
/// the difference of the exponent biases, which also normalises subnormals.
#[inline(always)]
pub(crate) fn f16_to_f32(h: u16) -> f32 {
    const RESCALE: f32 = f32::from_bits((127 + 112) << 23);
    let sign = u32::from(h & 0x8000) << 16;
    let magnitude = u32::from(h & 0x7fff) << 13;
    let finite = (f32::from_bits(magnitude) * RESCALE).to_bits();
    let bits = if magnitude >= 0x7c00 << 13 { magnitude | 0x7f80_0000 } else { finite };
    f32::from_bits(bits | sign)
}

/// e4m3fn: sign, 4 exponent bits (bias 7), 3 mantissa bits; 0x7f and 0xff are NaN, there is no infinity.
#[inline(always)]
fn f8e4m3_to_f32(b: u8) -> f32 {
    const RESCALE: f32 = f32::from_bits((127 + 120) << 23);
    let sign = u32::from(b & 0x80) << 24;
    let magnitude = u32::from(b & 0x7f);
    let finite = (f32::from_bits(magnitude << 20) * RESCALE).to_bits();
    let bits = if magnitude == 0x7f { f32::NAN.to_bits() } else { finite };
    f32::from_bits(bits | sign)
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;

    #[test]
    fn every_half_is_exact() {
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let mut out = vec![0.0; 1 << 16];
        widen_dispatched(StoredDType::F16, &bytes, &mut out);
        for (bits, &got) in (0..=u16::MAX).zip(&out) {
            let want = f16::from_bits(bits).to_f32();
            assert!(got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()), "{bits:#x}");
        }
    }

    #[test]
    fn every_fp8_is_exact() {
        let bytes: Vec<u8> = (0..=u8::MAX).collect();
        let mut out = vec![0.0; 256];
        widen_dispatched(StoredDType::F8E4M3, &bytes, &mut out);
        for (b, &got) in bytes.iter().zip(&out) {
            let (e, m) = ((b >> 3) & 15, f32::from(b & 7));
            let sign = if b & 0x80 == 0 { 1.0 } else { -1.0 };
            match (e, b & 7) {
                (15, 7) => assert!(got.is_nan()),
                (0, _) => assert_eq!(got, sign * m * 2f32.powi(-9)),
                _ => assert_eq!(got, sign * (1.0 + m / 8.0) * 2f32.powi(i32::from(e) - 7)),
            }
        }
        widen_dispatched(StoredDType::F8E5M2, &bytes, &mut out);
        for (&b, &got) in bytes.iter().zip(&out) {
            let want = f16::from_bits(u16::from(b) << 8).to_f32();
            assert!(got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()), "{b:#x}");
        }
    }
}
