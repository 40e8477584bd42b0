//! The value rules.
//!
//! 1. Key of a tensor: FNV-1a 64 of its UTF-8 name, xor seed times the golden-ratio constant, through [`mix`].
//! 2. Element i: the upper 24 bits of `mix(key + (i + 1) * GOLDEN)`, as r in [-1, 1) exact in f32; the value is
//!    `f32(std * sqrt 3) * r` plus the mean, each operation in f32: uniform with the given standard deviation.
//! 3. Mean and deviation follow from the tensor's name and shape ([`default_fill`]), unless the manifest says otherwise.

use std::sync::LazyLock;

use half::{bf16, f16};
use lattice_weights::StoredDType;
use regex::Regex;

/// 2^64 divided by the golden ratio, the increment of SplitMix64 (Steele, Lea & Flood 2014).
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// What a tensor is filled with.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Fill {
    /// Element index modulo the last axis.
    Arange,
    /// One value.
    Constant(f32),
    /// The table of that name of the scaled-linear schedule.
    Ddpm(&'static str),
    /// Uniform of that mean and standard deviation.
    Uniform { mean: f64, std: f64 },
}

/// Finaliser of SplitMix64.
fn mix(mut z: u64) -> u64 {
    z ^= z >> 30;
    z = z.wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z ^= z >> 27;
    z = z.wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Key of a tensor.
pub fn tensor_key(name: &str, seed: u64) -> u64 {
    let fnv =
        name.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |f, b| (f ^ u64::from(b)).wrapping_mul(0x100_0000_01B3));
    mix(fnv ^ seed.wrapping_mul(GOLDEN))
}

/// Element `index` of the tensor with that key, in [-1, 1).
pub fn uniform(key: u64, index: u64) -> f32 {
    let k = mix(key.wrapping_add(index.wrapping_add(1).wrapping_mul(GOLDEN))) >> 40;
    // 24 bits minus 2^23, divided by 2^23: exact in f32.
    (k as i32 - (1 << 23)) as f32 / (1 << 23) as f32
}

const DDPM_TABLES: [&str; 12] = [
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
];

/// A schedule table of Stable Diffusion checkpoints by its tensor name: scaled-linear betas 0.00085 to 0.012 over 1000
/// steps (Ho et al. 2020, eq. 4-7), in f64.
pub fn ddpm_table(name: &str) -> Option<Vec<f64>> {
    const STEPS: usize = 1000;
    let (first, last) = (0.00085f64.sqrt(), 0.012f64.sqrt());
    let step = (last - first) / (STEPS - 1) as f64;
    let mut previous = 1.0;
    let row = |i: usize| {
        let root = if i == STEPS - 1 { last } else { i as f64 * step + first };
        let beta = root * root;
        let before = previous;
        previous *= 1.0 - beta;
        (beta, previous, before)
    };
    let value = |(beta, a, before): (f64, f64, f64)| {
        let variance = beta * (1.0 - before) / (1.0 - a);
        Some(match name {
            "betas" => beta,
            "alphas_cumprod" => a,
            "alphas_cumprod_prev" => before,
            "sqrt_alphas_cumprod" => a.sqrt(),
            "sqrt_one_minus_alphas_cumprod" => (1.0 - a).sqrt(),
            "log_one_minus_alphas_cumprod" => (1.0 - a).ln(),
            "sqrt_recip_alphas_cumprod" => (1.0 / a).sqrt(),
            "sqrt_recipm1_alphas_cumprod" => (1.0 / a - 1.0).sqrt(),
            "posterior_variance" => variance,
            "posterior_log_variance_clipped" => variance.max(1e-20).ln(),
            "posterior_mean_coef1" => beta * before.sqrt() / (1.0 - a),
            "posterior_mean_coef2" => (1.0 - before) * (1.0 - beta).sqrt() / (1.0 - a),
            _ => return None,
        })
    };
    (0..STEPS).map(row).map(value).collect()
}

/// Standard deviation that keeps a linear map's output scale: 1 / sqrt(fan in).
pub(super) fn fan_in_std(shape: &[usize]) -> f64 {
    let fan_in: usize = shape.iter().skip(1).product();
    1.0 / (fan_in.max(1) as f64).sqrt()
}

/// The rule for tensors that the manifest says nothing about; there are no zero tensors, so that layers which training
/// starts at zero are tested too.
pub(super) fn default_fill(name: &str, shape: &[usize]) -> Fill {
    static NAMED: LazyLock<[(Regex, Fill); 8]> = LazyLock::new(|| {
        [
            (r"(^|\.)position_ids$", Fill::Arange),
            (r"(^|\.)logit_scale$", Fill::Constant(4.6052)),
            (r"num_batches_tracked$", Fill::Constant(1.0)),
            (r"^model_ema\.decay$", Fill::Constant(0.9999)),
            (r"^model_ema\.num_updates$", Fill::Constant(1000.0)),
            (r"\.alpha$", Fill::Constant(4.0)),
            (r"(^|\.)running_mean$", Fill::Constant(0.0)),
            (r"(^|\.)running_var$", Fill::Constant(1.0)),
        ]
        .map(|(pattern, fill)| (Regex::new(pattern).expect("constant pattern"), fill))
    });
    static GAIN: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"(weight|scale|gamma|\.g)$").expect("constant pattern"));
    static MODULATION: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"(scale_shift_table|modulation)$").expect("constant pattern"));
    static TABLE: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(concat!(
            r"(token_embedding|position_embedding|positional_embedding|class_embedding|relative_attention_bias|",
            r"embed_tokens|pos_embed|\bshared|mode_embedder|task_embedding|style_embedding|emb_pos|word_embeddings|",
            r"position_embeddings|latents|pos_embedding|query_tokens)(\.weight)?$"
        ))
        .expect("constant pattern")
    });
    let uniform = |mean, std| Fill::Uniform { mean, std };
    if let Some((_, fill)) = NAMED.iter().find(|(pattern, _)| pattern.is_match(name)) {
        return fill.clone();
    }
    if let Some(table) = DDPM_TABLES.into_iter().find(|&t| t == name) {
        return Fill::Ddpm(table);
    }
    if name.ends_with("mean-of-means") {
        return uniform(0.0, 0.2);
    }
    if name.ends_with("std-of-means") {
        return uniform(1.0, 0.2);
    }
    if shape.len() <= 1 || name.strip_suffix(".gamma").is_some() {
        return if name.ends_with("bias") {
            uniform(0.0, 0.05)
        } else if GAIN.is_match(name) {
            uniform(1.0, 0.10)
        } else {
            uniform(0.0, 0.10)
        };
    }
    if MODULATION.is_match(name) {
        uniform(0.0, 0.20)
    } else if TABLE.is_match(name) {
        uniform(0.0, 0.50)
    } else {
        uniform(0.0, fan_in_std(shape))
    }
}

/// How one tensor is filled and stored.
#[derive(Clone, Debug)]
pub struct TensorPlan {
    /// Storage type.
    pub dtype: StoredDType,
    /// Shape.
    pub shape: Vec<usize>,
    key: u64,
    fill: Fill,
}

impl TensorPlan {
    pub(super) fn new(name: &str, shape: &[usize], seed: u64, dtype: StoredDType, fill: Fill) -> Self {
        Self { dtype, shape: shape.to_vec(), key: tensor_key(name, seed), fill }
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Size of the stored tensor in bytes.
    pub fn bytes(&self) -> usize {
        self.elements() * self.dtype.size()
    }

    /// Writes the stored form of elements `start..`, as many as fit in `out`.
    pub fn encode(&self, start: usize, out: &mut [u8]) {
        match &self.fill {
            Fill::Arange => {
                let last = self.shape.last().copied().unwrap_or(1).max(1);
                store(self.dtype, out, |i| ((start + i) % last) as f32);
            }
            Fill::Constant(value) => store(self.dtype, out, |_| *value),
            Fill::Ddpm(name) => {
                let table = ddpm_table(name).unwrap_or_default();
                store(self.dtype, out, |i| table.get(start + i).map_or(0.0, |&v| v as f32));
            }
            Fill::Uniform { mean, std } => {
                let (mean, amp) = (*mean as f32, (std * 1.7320508075688772) as f32);
                store(self.dtype, out, |i| {
                    let v = amp * uniform(self.key, (start + i) as u64);
                    if mean == 0.0 { v } else { mean + v }
                });
            }
        }
    }
}

/// Writes values little endian; floats round to nearest even, integers truncate.
fn store(dtype: StoredDType, out: &mut [u8], value: impl Fn(usize) -> f32) {
    fn each<const N: usize>(out: &mut [u8], value: impl Fn(usize) -> [u8; N]) {
        for (i, bytes) in out.as_chunks_mut::<N>().0.iter_mut().enumerate() {
            *bytes = value(i);
        }
    }
    match dtype {
        StoredDType::F64 => each(out, |i| f64::from(value(i)).to_le_bytes()),
        StoredDType::F32 => each(out, |i| value(i).to_le_bytes()),
        StoredDType::F16 => each(out, |i| f16::from_f32(value(i)).to_le_bytes()),
        StoredDType::BF16 => each(out, |i| bf16::from_f32(value(i)).to_le_bytes()),
        StoredDType::F8E4M3 => each(out, |i| [f8e4m3_from_f32(value(i))]),
        StoredDType::I64 => each(out, |i| (value(i) as i64).to_le_bytes()),
        StoredDType::I32 => each(out, |i| (value(i) as i32).to_le_bytes()),
        StoredDType::U8 | StoredDType::Bool => each(out, |i| [value(i) as u8]),
        // Refused before anything is stored: no manifest names another type.
        _ => out.fill(0),
    }
}

/// Nearest e4m3fn value, ties to even; beyond the largest (448, with its rounding interval) NaN.
fn f8e4m3_from_f32(v: f32) -> u8 {
    let sign = if v.is_sign_negative() { 0x80 } else { 0 };
    let a = f64::from(v.abs());
    if a.is_nan() || a >= 464.0 {
        return sign | 0x7F;
    }
    // Below 2^-6 values are multiples of 2^-9 (subnormal), above it 8 steps per octave.
    let exponent = if a == 0.0 { -6 } else { a.log2().floor().max(-6.0) as i32 };
    let steps = (a / 2f64.powi(exponent - 3)).round_ties_even() as i32;
    // 16 steps are the next octave's 8: the code's carry runs into the exponent by itself.
    let code = if steps < 8 { steps } else { (exponent + 7) * 8 + steps - 8 };
    sign | code as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_test_vectors() {
        let a = tensor_key("a", 0);
        let got: Vec<f32> = (0..4).map(|i| uniform(a, i)).collect();
        assert_eq!(got, [-0.347_347_14, -0.246_005_54, -0.828_556_2, -0.424_869_3]);
        assert_eq!(tensor_key("model.diffusion_model.out.2.weight", 0), 0xd4bd_8070_f924_73bf);
    }

    #[test]
    fn every_e4m3_value_encodes_to_itself() {
        for code in 0..=0xFF_u8 {
            let weight =
                lattice_weights::Weight::new(StoredDType::F8E4M3, 1, vec![code].into(), None).unwrap();
            let value = weight.to_f32()[0];
            if value.is_nan() {
                assert_eq!(f8e4m3_from_f32(value) & 0x7F, 0x7F);
            } else {
                assert_eq!(f8e4m3_from_f32(value), code, "{value}");
            }
        }
    }
}
