//! Single operations by name and sizes, for the benchmark of this crate and the side-by-side runner.

#[path = "../../src/testing.rs"]
mod testing;

use candle_core::{Device, Result, Tensor, bail};
use half::{bf16, f16};
use lattice_kernels::nn::{Conv2d, Conv2dConfig, GroupNorm, LayerNorm, Linear};
use lattice_kernels::{Activation, StoredDType, Weight, ops};
use testing::values;

/// An operation, the type of its weight and its sizes.
#[derive(PartialEq)]
pub(crate) struct Case {
    pub(crate) op: String,
    pub(crate) dtype: String,
    pub(crate) dims: Vec<usize>,
}

fn tensor(dims: &[usize]) -> Result<Tensor> {
    Tensor::from_vec(values(dims.iter().product(), 0), dims, &Device::Cpu)
}

fn weight(dtype: &str, dims: &[usize]) -> Result<Weight> {
    let fan_in = dims[1..].iter().product::<usize>().max(1) as f32;
    let v: Vec<f32> = values(dims.iter().product(), 0).iter().map(|x| x / fan_in.sqrt()).collect();
    let (stored, bytes): (_, Vec<u8>) = match dtype {
        "f32" => return Weight::from_f32(v, dims),
        "f16" => (StoredDType::F16, v.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect()),
        "bf16" => (StoredDType::BF16, v.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect()),
        "f8" => (StoredDType::F8E4M3, v.iter().map(|&x| (f16::from_f32(x).to_bits() >> 8) as u8).collect()),
        other => bail!("unknown dtype {other}"),
    };
    Weight::new(stored, dims, bytes.into(), None)
}

/// The operation on operands that were made before.
pub(crate) type Run = Box<dyn Fn() -> Result<Tensor> + Send + Sync>;

/// Makes the operands of a case.
pub(crate) fn build(case: &Case) -> Result<Run> {
    let d = &case.dims;
    let need = |n: usize| if d.len() == n { Ok(()) } else { bail!("{} takes {n} numbers", case.op) };
    let zeros = |n: usize| Weight::from_f32(vec![0.1; n], n);
    Ok(match case.op.as_str() {
        "linear" | "geglu_linear" | "gelu_linear" => {
            need(3)?;
            let (m, k, n) = (d[0], d[1], d[2]);
            let layer = Linear::new(weight(&case.dtype, &[n, k])?, Some(zeros(n)?))?;
            let x = tensor(&[m, k])?;
            match case.op.as_str() {
                "linear" => Box::new(move || layer.forward(&x)),
                "gelu_linear" => Box::new(move || layer.forward_activation(&x, Activation::GeluTanh)),
                _ => Box::new(move || layer.forward_gated(&x, Activation::Gelu)),
            }
        }
        "attention" => {
            need(5)?; // batch, heads, queries, keys, head width
            let (b, h, lq, lk, w) = (d[0], d[1], d[2], d[3], d[4]);
            let (q, k, v) = (tensor(&[b, lq, h * w])?, tensor(&[b, lk, h * w])?, tensor(&[b, lk, h * w])?);
            Box::new(move || ops::attention(&q, &k, &v, h, 1.0 / (w as f32).sqrt(), None, false))
        }
        "conv" => {
            need(7)?; // batch, in, out, height, width, kernel, stride
            let config = Conv2dConfig::padded(d[5] / 2).stride(d[6]);
            let w = weight(&case.dtype, &[d[2], d[1], d[5], d[5]])?;
            let layer = Conv2d::new(w, Some(zeros(d[2])?), config)?;
            let x = tensor(&[d[0], d[1], d[3], d[4]])?;
            Box::new(move || layer.forward(&x))
        }
        "groupnorm_silu" => {
            need(4)?; // batch, channels, height, width
            let norm = GroupNorm::new(zeros(d[1])?, zeros(d[1])?, 32, 1e-5);
            let x = tensor(d)?;
            Box::new(move || norm.forward_silu(&x))
        }
        "layernorm" => {
            need(2)?; // rows, width
            let norm = LayerNorm::new(Some(zeros(d[1])?), Some(zeros(d[1])?), 1e-5);
            let x = tensor(d)?;
            Box::new(move || norm.forward(&x))
        }
        "geglu" => {
            need(2)?; // rows, width of the input
            let x = tensor(d)?;
            Box::new(move || ops::geglu(&x))
        }
        "gelu" => {
            need(2)?;
            let x = tensor(d)?;
            Box::new(move || ops::gelu(&x))
        }
        other => bail!("unknown operation {other}"),
    })
}
