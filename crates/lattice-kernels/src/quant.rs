//! Block-quantised element types as GGUF files store them, and their widening to f32.
//!
//! A block holds a fixed number of consecutive elements of a row: packed integers and the half-precision factors that
//! turn them into numbers. Layouts are those of the GGML library (MIT): the plain types (`Q4_0` ... `Q8_0`) have 32 elements
//! with one factor, the K types 256 elements in sub-blocks whose own factors are integers of a few bits.

use half::f16;

/// Elements of a block of the plain types.
pub const PLAIN_BLOCK: usize = 32;
/// Elements of a block of the K types.
pub const K_BLOCK: usize = 256;

/// The block types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlockType {
    /// 4 bits, one factor.
    Q4_0,
    /// 4 bits, factor and minimum.
    Q4_1,
    /// 5 bits, one factor.
    Q5_0,
    /// 5 bits, factor and minimum.
    Q5_1,
    /// 8 bits, one factor.
    Q8_0,
    /// 2 bits; 16 sub-blocks with a 4-bit factor and minimum each.
    Q2K,
    /// 3 bits; 16 sub-blocks with a 6-bit factor each.
    Q3K,
    /// 4 bits; 8 sub-blocks with a 6-bit factor and minimum each.
    Q4K,
    /// 5 bits; 8 sub-blocks with a 6-bit factor and minimum each.
    Q5K,
    /// 6 bits; 16 sub-blocks with an 8-bit factor each.
    Q6K,
}

impl BlockType {
    /// Elements per block.
    pub const fn len(self) -> usize {
        match self {
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => PLAIN_BLOCK,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => K_BLOCK,
        }
    }

    /// Never: a block has elements.
    pub const fn is_empty(self) -> bool {
        false
    }

    /// Bytes per block.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q2K => 84,
            Self::Q3K => 110,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// Widens whole blocks: `src` holds `n * self.bytes()` bytes, `out` as many times `self.len()` elements
    /// (of two different counts the smaller one is widened).
    pub fn widen(self, src: &[u8], out: &mut [f32]) {
        match self {
            Self::Q4_0 => each_block(src, out, q4_0),
            Self::Q4_1 => each_block(src, out, q4_1),
            Self::Q5_0 => each_block(src, out, q5_0),
            Self::Q5_1 => each_block(src, out, q5_1),
            Self::Q8_0 => each_block(src, out, q8_0),
            Self::Q2K => each_block(src, out, q2_k),
            Self::Q3K => each_block(src, out, q3_k),
            Self::Q4K => each_block(src, out, q4_k),
            Self::Q5K => each_block(src, out, q5_k),
            Self::Q6K => each_block(src, out, q6_k),
        }
    }

    /// Elements `start..start + out.len()` of a run of blocks, which need not start or end on a block's edge.
    pub fn widen_range(self, src: &[u8], start: usize, out: &mut [f32]) {
        let (len, bytes) = (self.len(), self.bytes());
        let mut scratch = [0f32; K_BLOCK];
        let mut block = start / len;
        // What remains of the first block, if the range starts inside it.
        let skip = start % len;
        let (head, rest) = out.split_at_mut(if skip == 0 { 0 } else { (len - skip).min(out.len()) });
        if !head.is_empty() {
            self.widen(&src[block * bytes..(block + 1) * bytes], &mut scratch[..len]);
            head.copy_from_slice(&scratch[skip..skip + head.len()]);
            block += 1;
        }
        let whole = rest.len() / len;
        let (body, tail) = rest.split_at_mut(whole * len);
        self.widen(&src[block * bytes..(block + whole) * bytes], body);
        block += whole;
        if !tail.is_empty() {
            self.widen(&src[block * bytes..(block + 1) * bytes], &mut scratch[..len]);
            tail.copy_from_slice(&scratch[..tail.len()]);
        }
    }
}

fn each_block<const B: usize, const N: usize>(
    src: &[u8],
    out: &mut [f32],
    f: impl Fn(&[u8; B], &mut [f32; N]),
) {
    for (block, o) in src.as_chunks::<B>().0.iter().zip(out.as_chunks_mut::<N>().0) {
        f(block, o);
    }
}

/// The half at byte `at`.
fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Low nibbles are elements 0..16, high nibbles 16..32.
fn q4_0(b: &[u8; 18], out: &mut [f32; 32]) {
    let d = half_at(b, 0);
    let (low, high) = out.split_at_mut(16);
    for ((&q, l), h) in b[2..].iter().zip(low).zip(high) {
        *l = d * (f32::from(q & 15) - 8.0);
        *h = d * (f32::from(q >> 4) - 8.0);
    }
}

fn q4_1(b: &[u8; 20], out: &mut [f32; 32]) {
    let (d, min) = (half_at(b, 0), half_at(b, 2));
    let (low, high) = out.split_at_mut(16);
    for ((&q, l), h) in b[4..].iter().zip(low).zip(high) {
        *l = d * f32::from(q & 15) + min;
        *h = d * f32::from(q >> 4) + min;
    }
}

/// The 5-bit integers of a block: nibbles, and bit i of `high_bits` as the fifth bit of element i.
fn five_bits(high_bits: [u8; 4], nibbles: &[u8], out: &mut [f32; 32]) {
    let bits = u32::from_le_bytes(high_bits);
    let fifth = |i: usize| ((bits >> i) & 1) as u8 * 16;
    let (low, high) = out.split_at_mut(16);
    for (i, ((&q, l), h)) in nibbles.iter().zip(low).zip(high).enumerate() {
        *l = f32::from((q & 15) | fifth(i));
        *h = f32::from((q >> 4) | fifth(i + 16));
    }
}

fn q5_0(b: &[u8; 22], out: &mut [f32; 32]) {
    let d = half_at(b, 0);
    five_bits([b[2], b[3], b[4], b[5]], &b[6..], out);
    for v in out {
        *v = d * (*v - 16.0);
    }
}

fn q5_1(b: &[u8; 24], out: &mut [f32; 32]) {
    let (d, min) = (half_at(b, 0), half_at(b, 2));
    five_bits([b[4], b[5], b[6], b[7]], &b[8..], out);
    for v in out {
        *v = d * *v + min;
    }
}

fn q8_0(b: &[u8; 34], out: &mut [f32; 32]) {
    let d = half_at(b, 0);
    for (&q, o) in b[2..].iter().zip(out) {
        *o = d * f32::from(q.cast_signed());
    }
}

/// Bytes: 16 sub-block scales (factor in the low, minimum in the high nibble), 64 of 2-bit integers, factor, minimum.
fn q2_k(b: &[u8; 84], out: &mut [f32; 256]) {
    let (scales, q) = (&b[..16], &b[16..80]);
    let (d, min) = (half_at(b, 80), half_at(b, 82));
    for (sub, o) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let (factor, offset) = (d * f32::from(scales[sub] & 15), min * f32::from(scales[sub] >> 4));
        let (at, shift) = two_bit_place(sub);
        for (v, &q) in o.iter_mut().zip(&q[at..at + 16]) {
            *v = factor * f32::from((q >> shift) & 3) - offset;
        }
    }
}

/// Where the 16 two-bit integers of a sub-block lie: each half of the block (128 elements) has 32 bytes, and its four
/// pairs of sub-blocks use bits 0-1, 2-3, 4-5 and 6-7 of them.
fn two_bit_place(sub: usize) -> (usize, usize) {
    ((sub / 8) * 32 + (sub % 2) * 16, (sub % 8) / 2 * 2)
}

/// Bytes: 32 of third bits (a clear bit subtracts 4), 64 of 2-bit integers, 12 of packed 6-bit scales, factor.
fn q3_k(b: &[u8; 110], out: &mut [f32; 256]) {
    let (third, q, scales) = (&b[..32], &b[32..96], &b[96..108]);
    let d = half_at(b, 108);
    for (sub, o) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let low = if sub < 8 { scales[sub] & 15 } else { scales[sub - 8] >> 4 };
        let high = (scales[8 + sub % 4] >> (2 * (sub / 4))) & 3;
        let factor = d * (f32::from(low | (high << 4)) - 32.0);
        let (at, shift) = two_bit_place(sub);
        let (third_at, bit) = ((sub % 2) * 16, sub / 2);
        for (i, v) in o.iter_mut().enumerate() {
            let minus = if third[third_at + i] >> bit & 1 == 1 { 0.0 } else { 4.0 };
            *v = factor * (f32::from((q[at + i] >> shift) & 3) - minus);
        }
    }
}

/// Factor and minimum of sub-block `i` of 8 out of 12 bytes of 6-bit integers (Q4_K, Q5_K).
fn six_bit_pair(scales: &[u8], i: usize) -> (f32, f32) {
    let (factor, min) = if i < 4 {
        (scales[i] & 63, scales[i + 4] & 63)
    } else {
        ((scales[i + 4] & 15) | ((scales[i - 4] >> 6) << 4), (scales[i + 4] >> 4) | ((scales[i] >> 6) << 4))
    };
    (f32::from(factor), f32::from(min))
}

/// Bytes: factor, minimum, 12 of packed 6-bit scales, 128 of nibbles (32 bytes hold two sub-blocks: low, then high nibbles).
fn q4_k(b: &[u8; 144], out: &mut [f32; 256]) {
    let (d, dmin) = (half_at(b, 0), half_at(b, 2));
    for (sub, o) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (factor, min) = six_bit_pair(&b[4..16], sub);
        let (factor, min, shift) = (d * factor, dmin * min, (sub % 2) * 4);
        let q = &b[16 + sub / 2 * 32..][..32];
        for (v, &q) in o.iter_mut().zip(q) {
            *v = factor * f32::from((q >> shift) & 15) - min;
        }
    }
}

/// As Q4_K, with 32 bytes of fifth bits (bit `sub` of byte i for element i of the sub-block) before the nibbles.
fn q5_k(b: &[u8; 176], out: &mut [f32; 256]) {
    let (d, dmin) = (half_at(b, 0), half_at(b, 2));
    for (sub, o) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (factor, min) = six_bit_pair(&b[4..16], sub);
        let (factor, min, shift) = (d * factor, dmin * min, (sub % 2) * 4);
        let (fifth, q) = (&b[16..48], &b[48 + sub / 2 * 32..][..32]);
        for ((v, &q), &h) in o.iter_mut().zip(q).zip(fifth) {
            *v = factor * f32::from(((q >> shift) & 15) | ((h >> sub & 1) << 4)) - min;
        }
    }
}

/// Bytes: 128 of low nibbles, 64 of two high bits, 16 signed scales, factor. Each half of the block (128 elements) is four runs of
/// 32: runs 0, 1 take the low nibbles of its 64 bytes, runs 2, 3 the high ones; run r takes bits 2r, 2r+1 of its 32 high bytes.
fn q6_k(b: &[u8; 210], out: &mut [f32; 256]) {
    let d = half_at(b, 208);
    for (sub, o) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let factor = d * f32::from(b[192 + sub].cast_signed());
        let (half, run, within) = (sub / 8, sub % 8 / 2, (sub % 2) * 16);
        let low = &b[half * 64 + (run % 2) * 32 + within..][..16];
        let high = &b[128 + half * 32 + within..][..16];
        for ((v, &l), &h) in o.iter_mut().zip(low).zip(high) {
            *v = factor * (f32::from(((l >> (run / 2 * 4)) & 15) | (((h >> (2 * run)) & 3) << 4)) - 32.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::quantized::{GgmlDType, QStorage, QTensor};
    use candle_core::{Device, Tensor};
    use std::borrow::Cow;

    use super::*;

    const TYPES: [(BlockType, GgmlDType); 10] = [
        (BlockType::Q4_0, GgmlDType::Q4_0),
        (BlockType::Q4_1, GgmlDType::Q4_1),
        (BlockType::Q5_0, GgmlDType::Q5_0),
        (BlockType::Q5_1, GgmlDType::Q5_1),
        (BlockType::Q8_0, GgmlDType::Q8_0),
        (BlockType::Q2K, GgmlDType::Q2K),
        (BlockType::Q3K, GgmlDType::Q3K),
        (BlockType::Q4K, GgmlDType::Q4K),
        (BlockType::Q5K, GgmlDType::Q5K),
        (BlockType::Q6K, GgmlDType::Q6K),
    ];

    /// Bytes of `n` blocks: any bit pattern is valid but for the factors, which are kept finite and small.
    fn blocks(kind: BlockType, n: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_u32;
        let mut bytes: Vec<u8> = (0..n * kind.bytes())
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        let factors: &[usize] = match kind {
            BlockType::Q4_0 | BlockType::Q5_0 | BlockType::Q8_0 => &[1],
            BlockType::Q4_1 | BlockType::Q5_1 | BlockType::Q4K | BlockType::Q5K => &[1, 3],
            BlockType::Q2K => &[81, 83],
            BlockType::Q3K => &[109],
            BlockType::Q6K => &[209],
        };
        for block in bytes.chunks_exact_mut(kind.bytes()) {
            for &high_byte in factors {
                block[high_byte] = 0x30 | block[high_byte] & 0x83;
            }
        }
        bytes
    }

    #[test]
    fn widening_agrees_with_candle() {
        for (kind, ggml) in TYPES {
            assert_eq!((kind.len(), kind.bytes()), (ggml.block_size(), ggml.type_size()), "{kind:?}");
            let bytes = blocks(kind, 6);
            let mut got = vec![0f32; 6 * kind.len()];
            kind.widen(&bytes, &mut got);
            let storage = QStorage::from_data(Cow::Borrowed(&bytes), &Device::Cpu, ggml).unwrap();
            let want: Tensor =
                QTensor::new(storage, (2, 3 * kind.len())).unwrap().dequantize(&Device::Cpu).unwrap();
            let want: Vec<f32> = want.flatten_all().unwrap().to_vec1().unwrap();
            for (i, (g, w)) in got.iter().zip(&want).enumerate() {
                assert!((g - w).abs() <= 1e-6 * w.abs().max(1.0), "{kind:?} element {i}: {g} for {w}");
            }
        }
    }

    #[test]
    fn ranges_may_start_and_end_inside_blocks() {
        for (kind, _) in TYPES {
            let bytes = blocks(kind, 4);
            let mut all = vec![0f32; 4 * kind.len()];
            kind.widen(&bytes, &mut all);
            let len = kind.len();
            for (start, end) in
                [(0, 4 * len), (3, 7), (5, len), (len - 1, 2 * len + 1), (len, 3 * len), (7, 4 * len), (9, 9)]
            {
                let mut got = vec![f32::NAN; end - start];
                kind.widen_range(&bytes, start, &mut got);
                assert_eq!(got, all[start..end], "{kind:?} {start}..{end}");
            }
        }
    }
}
