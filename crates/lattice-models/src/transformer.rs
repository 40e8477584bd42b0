//! What the diffusion transformers have in common (Peebles & Xie 2023 and its successors).

use candle_core::{Result, Tensor, bail};
use lattice_kernels::Activation;
use lattice_kernels::nn::{LayerNorm, Linear, RmsNorm};
use lattice_weights::Scope;

use crate::error::Built;
use crate::layers::ScopeExt;

/// Layer norm without gain and bias, followed by a modulation.
pub(crate) fn plain_norm(eps: f64) -> LayerNorm {
    LayerNorm::new(None, None, eps)
}

/// The vectors of one modulation: a linear map of the (activated) condition [B, C], cut into parts [B, 1, C].
#[derive(Debug)]
pub(crate) struct Modulation {
    linear: Linear,
    parts: usize,
}

impl Modulation {
    pub(crate) fn new(scope: &Scope<'_>, width: usize, parts: usize) -> Built<Self> {
        Ok(Self { linear: scope.linear(width, parts * width)?, parts })
    }

    pub(crate) fn forward(&self, activated: &Tensor) -> Result<Vec<Tensor>> {
        self.linear.forward(activated)?.unsqueeze(1)?.chunk(self.parts, 2)
    }
}

/// Two linear layers under the given names with SiLU between: embedders of scalars and vectors.
#[derive(Debug)]
pub(crate) struct Embedder(Linear, Linear);

impl Embedder {
    pub(crate) fn new(scope: &Scope<'_>, names: [&str; 2], width: usize) -> Built<Self> {
        let first = scope.at(names[0]);
        let shape = first.shape("weight", 2)?;
        Ok(Self(first.linear(shape[1], shape[0])?, scope.at(names[1]).linear(shape[0], width)?))
    }

    /// Width of the input.
    pub(crate) fn input_width(scope: &Scope<'_>, name: &str) -> Built<usize> {
        Ok(scope.at(name).shape("weight", 2)?[1])
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.1.forward(&self.0.forward(x)?.silu()?)
    }
}

/// Linear, tanh-GELU, linear.
#[derive(Debug)]
pub(crate) struct Mlp(Linear, Linear);

impl Mlp {
    pub(crate) fn new(scope: &Scope<'_>, names: [&str; 2], width: usize) -> Built<Self> {
        let first = scope.at(names[0]);
        let inner = first.shape("weight", 2)?[0];
        Ok(Self(first.linear(width, inner)?, scope.at(names[1]).linear(inner, width)?))
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.1.forward(&self.0.forward_activation(x, Activation::GeluTanh)?)
    }
}

/// Query, key and value of tokens from one fused matrix, with RMS norms of query and key over each head.
#[derive(Debug)]
pub(crate) struct Qkv {
    q: Linear,
    k: Linear,
    v: Linear,
    norms: Option<(RmsNorm, RmsNorm)>,
    heads: usize,
}

impl Qkv {
    /// From `weight` [3 * width, width] below `scope`.
    pub(crate) fn new(
        scope: &Scope<'_>,
        width: usize,
        heads: usize,
        norms: Option<(RmsNorm, RmsNorm)>,
    ) -> Built<Self> {
        Self::from_parts(scope.linear_parts(width, &[width; 3])?, heads, norms)
    }

    /// From the first three of some linear maps.
    pub(crate) fn from_parts(
        parts: Vec<Linear>,
        heads: usize,
        norms: Option<(RmsNorm, RmsNorm)>,
    ) -> Built<Self> {
        let mut parts = parts.into_iter();
        match (parts.next(), parts.next(), parts.next()) {
            (Some(q), Some(k), Some(v)) => Ok(Self { q, k, v, norms, heads }),
            _ => Err(candle_core::Error::Msg("attention needs three projections".into()).into()),
        }
    }

    /// x [B, L, C] to query, key and value of the same shape.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<[Tensor; 3]> {
        let (mut q, mut k) = (self.q.forward(x)?, self.k.forward(x)?);
        if let Some((q_norm, k_norm)) = &self.norms {
            q = norm_heads(&q, q_norm, self.heads)?;
            k = norm_heads(&k, k_norm, self.heads)?;
        }
        Ok([q, k, self.v.forward(x)?])
    }
}

/// Normalises each head of x [B, L, H * D] by itself.
pub(crate) fn norm_heads(x: &Tensor, norm: &RmsNorm, heads: usize) -> Result<Tensor> {
    let (b, l, width) = x.dims3()?;
    norm.forward(&x.reshape((b, l, heads, width / heads))?)?.reshape((b, l, width))
}

/// Attention of the joined tokens of two streams, split again: (first, second).
pub(crate) fn joint_attention(
    first: [Tensor; 3],
    second: [Tensor; 3],
    attend: impl FnOnce(&Tensor, &Tensor, &Tensor) -> Result<Tensor>,
) -> Result<(Tensor, Tensor)> {
    let (l1, l2) = (first[0].dim(1)?, second[0].dim(1)?);
    let [q, k, v] = [0, 1, 2].map(|i| Tensor::cat(&[&first[i], &second[i]], 1));
    drop((first, second));
    let a = attend(&q?, &k?, &v?)?;
    Ok((a.narrow(1, 0, l1)?.contiguous()?, a.narrow(1, l1, l2)?.contiguous()?))
}

/// Pads the last two axes of [.., H, W] at the bottom and right to multiples of `patch`, with what stands at the top and
/// left (as on a torus).
pub(crate) fn pad_circular(x: &Tensor, patch: usize) -> Result<Tensor> {
    let mut x = x.clone();
    let rank = x.rank();
    for axis in [rank - 2, rank - 1] {
        let size = x.dim(axis)?;
        let missing = size.next_multiple_of(patch) - size;
        if missing > size {
            bail!("a latent of {size} cells cannot be padded to a patch of {patch}")
        }
        if missing > 0 {
            x = Tensor::cat(&[&x, &x.narrow(axis, 0, missing)?], axis)?;
        }
    }
    Ok(x)
}

/// The condition's batch must be the latent's.
pub(crate) fn check_width(what: &str, found: usize, wanted: usize) -> Result<()> {
    if found == wanted { Ok(()) } else { bail!("{what} is {found} wide, this network needs {wanted}") }
}
