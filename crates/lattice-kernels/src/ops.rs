//! Operations without parameters: attention, activations, resampling.

use candle_core::{D, Result, Tensor, bail};

use crate::activation::Activation;
use crate::attention::{Attention, Bias, Sequence};
use crate::exchange::exchange;
use crate::pointwise;
pub use crate::spectrum::low_frequencies;
use crate::tensor::{changed, filled, on_cpu, with_rows, with_slice};

/// Scaled dot-product attention (Vaswani et al. 2017, eq. 1), softmax(q k^T * scale + bias) v.
///
/// `q` [B, Lq, H*W], `k`, `v` [B, Lk, H*W] with `heads` = H side by side on the last axis; result [B, Lq, H*W].
/// `bias` is added to the scores and broadcasts to [B, H, Lq, Lk]; `causal` masks keys after the query.
/// On the CPU memory does not grow with Lq * Lk, and a query without any key that is not masked gets zeros.
///
/// # Errors
/// If the shapes do not fit each other.
pub fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: usize,
    scale: f32,
    bias: Option<&Tensor>,
    causal: bool,
) -> Result<Tensor> {
    let (batch, queries, all) = q.dims3()?;
    let keys = k.dim(1)?;
    if heads == 0 || !all.is_multiple_of(heads) || k.dims() != [batch, keys, all] || v.dims() != k.dims() {
        bail!(
            "attention of {heads} heads cannot take q {:?}, k {:?}, v {:?}",
            q.shape(),
            k.shape(),
            v.shape()
        )
    }
    if !on_cpu(q) {
        return attention_device(q, k, v, heads, scale, bias, causal);
    }
    let bias = bias.map(|b| b.broadcast_as((batch, heads, queries, keys))).transpose()?;
    let q_tensor = q;
    with_rows(q, |q, [q_batch, q_row]| {
        with_rows(k, |k, [k_batch, k_row]| {
            with_rows(v, |v, [v_batch, v_row]| {
                let attend = |bias: Option<Bias<'_>>| {
                    let attention = Attention {
                        q: Sequence { data: q, batch: q_batch, row: q_row },
                        k: Sequence { data: k, batch: k_batch, row: k_row },
                        v: Sequence { data: v, batch: v_batch, row: v_row },
                        batch,
                        heads,
                        width: all / heads,
                        queries,
                        keys,
                        scale,
                        bias,
                        causal,
                    };
                    // SAFETY: `run` writes every row of every head.
                    unsafe { filled((batch, queries, all), q_tensor, |out| attention.run(out)) }
                };
                match &bias {
                    Some(b) => with_rows(b, |data, steps| attend(Some(Bias { data, steps }))),
                    None => attend(None),
                }
            })
        })
    })
}

/// The same with candle's operations, for devices other than the CPU.
fn attention_device(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: usize,
    scale: f32,
    bias: Option<&Tensor>,
    causal: bool,
) -> Result<Tensor> {
    let (b, lq, width) = q.dims3()?;
    let lk = k.dim(1)?;
    let split = |t: &Tensor, l: usize| t.reshape((b, l, heads, ()))?.transpose(1, 2)?.contiguous();
    let (q, k, v) = (split(q, lq)?, split(k, lk)?, split(v, lk)?);
    let mut scores = (q.matmul(&k.t()?.contiguous()?)? * f64::from(scale))?;
    if let Some(bias) = bias {
        scores = scores.broadcast_add(bias)?;
    }
    if causal {
        let mask: Vec<f32> =
            (0..lq * lk).map(|i| if i % lk > i / lk { f32::NEG_INFINITY } else { 0.0 }).collect();
        scores = scores.broadcast_add(&Tensor::from_vec(mask, (lq, lk), q.device())?)?;
    }
    let max = scores.max_keepdim(D::Minus1)?;
    let e = scores.broadcast_sub(&max)?.exp()?;
    let p = e.broadcast_div(&e.sum_keepdim(D::Minus1)?)?;
    p.matmul(&v)?.transpose(1, 2)?.reshape((b, lq, width))
}

/// x * sigmoid(1.702 x), CLIP's approximation of GELU.
pub fn quick_gelu(x: &Tensor) -> Result<Tensor> {
    activation(x, Activation::QuickGelu)
}

/// Exact GELU, x * Phi(x) (Hendrycks & Gimpel 2016).
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    activation(x, Activation::Gelu)
}

/// GEGLU (Shazeer 2020): the last axis holds value and gate side by side; value * gelu(gate).
pub fn geglu(x: &Tensor) -> Result<Tensor> {
    gated(x, Activation::Gelu)
}

/// A gated unit: the last axis holds value and gate side by side; value * activation(gate).
///
/// # Errors
/// If the last axis is odd.
pub fn gated(x: &Tensor, activation: Activation) -> Result<Tensor> {
    let width = x.dim(D::Minus1)?;
    if !width.is_multiple_of(2) {
        candle_core::bail!("a gated unit halves its last axis, got {:?}", x.shape())
    }
    if !on_cpu(x) {
        let halves = x.chunk(2, D::Minus1)?;
        return &halves[0] * on_device(&halves[1].contiguous()?, activation)?;
    }
    let mut dims = x.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = width / 2;
    }
    // SAFETY: `gate` writes every element.
    unsafe { with_slice(x, |src| filled(dims, x, |out| pointwise::gate(src, width, activation, out))) }
}

/// A picture's cells as tokens: x [B, C, ...] to [B, cells, C].
///
/// # Errors
/// If x has no axis of channels.
pub fn to_tokens(x: &Tensor) -> Result<Tensor> {
    let x = x.flatten_from(2)?;
    let (batch, channels, cells) = x.dims3()?;
    if !on_cpu(&x) {
        return x.transpose(1, 2)?.contiguous();
    }
    let dims = (batch, cells, channels);
    // SAFETY: `exchange` writes every element.
    unsafe { with_slice(&x, |src| filled(dims, &x, |out| exchange(src, [channels, cells], None, out))) }
}

/// x + the picture whose cells are `tokens`: x [B, C, ...] and tokens [B, cells, C] to [B, C, ...].
///
/// # Errors
/// If the sizes do not fit each other.
pub fn add_tokens(x: &Tensor, tokens: &Tensor) -> Result<Tensor> {
    let (batch, cells, channels) = tokens.dims3()?;
    if x.rank() < 2 || x.dims()[..2] != [batch, channels] || x.elem_count() != tokens.elem_count() {
        bail!("tokens {:?} cannot be added to {:?}", tokens.shape(), x.shape())
    }
    if !on_cpu(x) {
        return x + tokens.transpose(1, 2)?.reshape(x.shape())?;
    }
    with_slice(x, |add| {
        with_slice(tokens, |src| {
            // SAFETY: `exchange` writes every element.
            unsafe { filled(x.shape(), x, |out| exchange(src, [cells, channels], Some(add), out)) }
        })
    })
}

/// `sum` + x in the memory of `sum`, which is a result that was just made: whatever else shares its memory changes with it.
/// (Where `sum` does not lie in row-major order, it is copied first.)
///
/// # Errors
/// If the shapes differ.
pub fn add_to(sum: Tensor, x: &Tensor) -> Result<Tensor> {
    if sum.dims() != x.dims() {
        bail!("{:?} cannot be added to {:?} in place", x.shape(), sum.shape())
    }
    if !on_cpu(&sum) {
        return sum + x;
    }
    with_slice(x, |x| changed(sum.contiguous()?, |sum| pointwise::add(x, sum)))
}

/// `sum` [B, C, ...] plus one value per channel, `values` [B, C], in the memory of `sum` as in [`add_to`].
///
/// # Errors
/// If the shapes do not fit each other.
pub fn add_per_channel(sum: Tensor, values: &Tensor) -> Result<Tensor> {
    let (batch, channels) = values.dims2()?;
    if sum.rank() < 2 || sum.dims()[..2] != [batch, channels] {
        bail!("values {:?} cannot be added to the channels of {:?}", values.shape(), sum.shape())
    }
    if !on_cpu(&sum) {
        let mut dims = vec![1; sum.rank()];
        dims[..2].copy_from_slice(&[batch, channels]);
        return sum.broadcast_add(&values.reshape(dims)?);
    }
    let pixels = sum.dims()[2..].iter().product();
    with_slice(values, |values| changed(sum.contiguous()?, |sum| pointwise::add_per_run(values, pixels, sum)))
}

/// x + gate * `update` for x and `update` [B, L, C] and a gate [B, 1, C], in the memory of `update` as in [`add_to`].
///
/// # Errors
/// If the shapes do not fit each other.
pub fn add_gated(x: &Tensor, gate: &Tensor, update: Tensor) -> Result<Tensor> {
    let (batch, length, width) = update.dims3()?;
    if x.dims() != update.dims() || gate.dims() != [batch, 1, width] {
        bail!("{:?} gated by {:?} cannot be added to {:?}", update.shape(), gate.shape(), x.shape())
    }
    if !on_cpu(x) {
        return x + update.broadcast_mul(gate)?;
    }
    with_slice(x, |x| {
        with_slice(gate, |gate| {
            changed(update.contiguous()?, |update| pointwise::add_gated(x, gate, width, length, update))
        })
    })
}

/// Rotary position embedding (Su et al. 2021, eq. 34): neighbouring pairs (2i, 2i + 1) of each of the `heads` heads of
/// x [B, L, H * 2 P] are turned by the angle whose cosine and sine stand in `cos` and `sin` [L, P].
///
/// # Errors
/// If the shapes do not fit each other.
pub fn rotate_neighbours(x: &Tensor, heads: usize, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let (batch, length, width) = x.dims3()?;
    let (rows, pairs) = cos.dims2()?;
    if rows != length || 2 * pairs * heads != width || sin.dims() != cos.dims() {
        bail!("angles {:?} cannot turn {heads} heads of {:?}", cos.shape(), x.shape())
    }
    if on_cpu(x) {
        return with_slice(x, |src| {
            with_slice(cos, |cos| {
                with_slice(sin, |sin| {
                    let fill = |out: &mut [f32]| pointwise::rotate(src, heads, [cos, sin], pairs, out);
                    // SAFETY: `rotate` writes every pair of every row.
                    unsafe { filled(x.shape(), x, fill) }
                })
            })
        });
    }
    let parts = x.reshape((batch, length, heads, pairs, 2))?;
    let (a, b) = (parts.narrow(4, 0, 1)?.squeeze(4)?, parts.narrow(4, 1, 1)?.squeeze(4)?);
    let (cos, sin) = (cos.reshape((1, length, 1, pairs))?, sin.reshape((1, length, 1, pairs))?);
    let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
    let second = (a.broadcast_mul(&sin)? + b.broadcast_mul(&cos)?)?;
    Tensor::stack(&[first, second], 4)?.reshape((batch, length, width))
}

/// Nearest-neighbour enlargement of [B, C, H, W] to the given height and width: output i reads input
/// floor(i * in / out).
pub fn upsample_nearest(x: &Tensor, height: usize, width: usize) -> Result<Tensor> {
    x.upsample_nearest2d(height, width)
}

/// An elementwise function.
pub fn activation(x: &Tensor, activation: Activation) -> Result<Tensor> {
    if !on_cpu(x) {
        return on_device(x, activation);
    }
    // SAFETY: `apply` writes every element.
    unsafe { with_slice(x, |src| filled(x.shape(), x, |out| pointwise::apply(src, activation, out))) }
}

/// The same with candle's operations, for devices other than the CPU.
fn on_device(x: &Tensor, activation: Activation) -> Result<Tensor> {
    match activation {
        Activation::None => Ok(x.clone()),
        Activation::Silu => x.silu(),
        Activation::Gelu => x.gelu_erf(),
        Activation::GeluTanh => x.gelu(),
        Activation::QuickGelu => x * ((x * -1.702)?.exp()? + 1.0)?.recip()?,
        Activation::Relu => x.relu(),
        Activation::Tanh => x.tanh(),
        Activation::Erf => x.erf(),
        Activation::Sigmoid => (x.neg()?.exp()? + 1.0)?.recip(),
    }
}
