//! The encoder of T5 1.1 (Raffel et al. 2020; Shazeer 2020) and of UMT5 (Chung et al. 2023), whose blocks each have a
//! position table of their own.

use candle_core::{Device, Result, Tensor};
use lattice_kernels::Activation;
use lattice_kernels::nn::{Embedding, Linear, RmsNorm};
use lattice_kernels::ops;
use lattice_weights::{Scope, Weight};

use super::{TextEncoder, TextInput, TextOptions, TextOutput, embed_tokens};
use crate::error::Built;
use crate::layers::ScopeExt;

const EPS: f64 = 1e-6;
/// Distance from which on all positions share a bucket.
const MAX_DISTANCE: f32 = 128.0;

/// Structure of a T5 encoder; its tensors tell everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct T5Config {
    /// Width of the states.
    pub width: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of all heads together.
    pub inner: usize,
    /// Buckets of relative positions.
    pub buckets: usize,
    /// Whether each block has its own position table (UMT5).
    pub own_positions: bool,
}

impl T5Config {
    /// Reads the structure from the tensors below `scope`.
    pub fn read(scope: &Scope<'_>) -> Built<Self> {
        let blocks = scope.at("encoder").at("block");
        let attention = |i: usize| blocks.at(i).at("layer").at(0).at("SelfAttention");
        let q = attention(0).shape("q.weight", 2)?;
        let table = attention(0).shape("relative_attention_bias.weight", 2)?;
        let (buckets, heads) = (table[0], table[1]);
        // Half the buckets are for either direction, half of those for single positions.
        if !q[0].is_multiple_of(heads) || !buckets.is_multiple_of(4) {
            let name = attention(0).full_name("relative_attention_bias.weight");
            return Err(
                scope.invalid(format!("`{name}`: {heads} heads and {buckets} buckets fit no attention"))
            );
        }
        Ok(Self {
            width: q[1],
            layers: blocks.count(),
            heads,
            inner: q[0],
            buckets,
            own_positions: attention(1).has("relative_attention_bias.weight"),
        })
    }
}

/// Feed-forward layer.
#[derive(Debug)]
enum FeedForward {
    /// wo(gelu(wi_0 x) * wi_1 x).
    Gated { wi_0: Linear, wi_1: Linear, wo: Linear },
    /// wo(relu(wi x)), the first version's.
    Plain { wi: Linear, wo: Linear },
}

impl FeedForward {
    fn new(scope: &Scope<'_>, width: usize) -> Built<Self> {
        let inner = scope.shape("wo.weight", 2)?[1];
        let wo = scope.at("wo").linear_no_bias(inner, width)?;
        let input = |name| scope.at(name).linear_no_bias(width, inner);
        if scope.has("wi.weight") {
            Ok(Self::Plain { wi: input("wi")?, wo })
        } else {
            Ok(Self::Gated { wi_0: input("wi_0")?, wi_1: input("wi_1")?, wo })
        }
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Gated { wi_0, wi_1, wo } => {
                let gate = wi_0.forward_activation(x, Activation::GeluTanh)?;
                wo.forward(&(gate * wi_1.forward(x)?)?)
            }
            Self::Plain { wi, wo } => wo.forward(&wi.forward_activation(x, Activation::Relu)?),
        }
    }
}

#[derive(Debug)]
struct Block {
    attention_norm: RmsNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    /// [buckets, heads]; blocks without one use the last before them.
    relative_attention_bias: Option<Weight>,
    feed_forward_norm: RmsNorm,
    feed_forward: FeedForward,
}

impl Block {
    fn new(scope: &Scope<'_>, config: &T5Config) -> Built<Self> {
        let (attention, feed_forward) = (scope.at("layer").at(0), scope.at("layer").at(1));
        let inner = attention.at("SelfAttention");
        let project = |name| inner.at(name).linear_no_bias(config.width, config.inner);
        let table = inner.at("relative_attention_bias");
        Ok(Self {
            attention_norm: attention.at("layer_norm").rms_norm("weight", config.width, EPS)?,
            q: project("q")?,
            k: project("k")?,
            v: project("v")?,
            o: inner.at("o").linear_no_bias(config.inner, config.width)?,
            relative_attention_bias: if table.has("weight") {
                Some(table.tensor("weight", &[config.buckets, config.heads])?)
            } else {
                None
            },
            feed_forward_norm: feed_forward.at("layer_norm").rms_norm("weight", config.width, EPS)?,
            feed_forward: FeedForward::new(&feed_forward.at("DenseReluDense"), config.width)?,
        })
    }

    /// x [B, L, C]; `bias` is added to the scores, which are not divided by the root of the head width.
    fn forward(&self, x: Tensor, bias: &Tensor, heads: usize) -> Result<Tensor> {
        let h = self.attention_norm.forward(&x)?;
        let (q, k, v) = (self.q.forward(&h)?, self.k.forward(&h)?, self.v.forward(&h)?);
        drop(h);
        let a = ops::attention(&q, &k, &v, heads, 1.0, Some(bias), false)?;
        let x = self.o.forward_residual(&a, &x)?;
        ops::add_to(self.feed_forward.forward(&self.feed_forward_norm.forward(&x)?)?, &x)
    }
}

/// A T5 or UMT5 encoder under Hugging Face names.
#[derive(Debug)]
pub struct T5Encoder {
    config: T5Config,
    shared: Embedding,
    block: Vec<Block>,
    final_layer_norm: RmsNorm,
}

impl T5Encoder {
    /// Builds the encoder of that structure whose tensors stand below `scope`.
    pub fn new(scope: &Scope<'_>, config: T5Config) -> Built<Self> {
        let encoder = scope.at("encoder");
        // Some files keep only the encoder's own name of the shared table.
        let table = [scope.at("shared"), encoder.at("embed_tokens")].into_iter().find(|s| s.has("weight"));
        let table = table.unwrap_or_else(|| scope.at("shared"));
        let rows = table.shape("weight", 2)?[0];
        let blocks = encoder.at("block");
        Ok(Self {
            shared: table.embedding(rows, config.width)?,
            block: (0..config.layers).map(|i| Block::new(&blocks.at(i), &config)).collect::<Built<_>>()?,
            final_layer_norm: encoder.at("final_layer_norm").rms_norm("weight", config.width, EPS)?,
            config,
        })
    }

    /// The structure.
    pub fn config(&self) -> &T5Config {
        &self.config
    }

    /// The table's entries for all pairs of `length` positions, [1, heads, length, length].
    fn position_bias(&self, table: &Weight, length: usize) -> Result<Tensor> {
        let (heads, values) = (self.config.heads, table.to_f32());
        // It depends only on key minus query.
        let buckets: Vec<usize> =
            (0..2 * length).map(|i| relative_bucket(i as i64 - length as i64, self.config.buckets)).collect();
        let mut bias = Vec::with_capacity(heads * length * length);
        for head in 0..heads {
            for query in 0..length {
                let row = (0..length).map(|key| values[buckets[key + length - query] * heads + head]);
                bias.extend(row);
            }
        }
        Tensor::from_vec(bias, (1, heads, length, length), &Device::Cpu)
    }
}

/// Bucket of a distance (key minus query), by Raffel et al. 2020: the upper half of the buckets for keys after the query; in
/// each half one bucket for each of the nearest positions, then logarithmically wider ones up to [`MAX_DISTANCE`].
fn relative_bucket(distance: i64, buckets: usize) -> usize {
    let half = buckets / 2;
    let start = if distance > 0 { half } else { 0 };
    let (n, exact) = (distance.unsigned_abs() as usize, half / 2);
    if n < exact {
        return start + n;
    }
    let (n, exact_f) = (n as f32, exact as f32);
    let steps = (n / exact_f).ln() / (MAX_DISTANCE / exact_f).ln() * (half - exact) as f32;
    start + (exact + steps as usize).min(half - 1)
}

impl TextEncoder for T5Encoder {
    fn width(&self) -> usize {
        self.config.width
    }

    fn encode(&self, input: &TextInput, options: TextOptions) -> Result<TextOutput> {
        let (batch, length) = input.size()?;
        let mask = match &input.mask {
            Some(mask) => {
                let values: Vec<f32> =
                    mask.iter().flatten().map(|&counts| if counts { 0.0 } else { f32::MIN }).collect();
                Some(Tensor::from_vec(values, (batch, 1, 1, length), &Device::Cpu)?)
            }
            None => None,
        };
        let depth = self.block.len();
        let wanted = if (1..=depth).contains(&options.layer) { depth - options.layer } else { depth - 1 };
        let mut h = embed_tokens(&self.shared, input)?;
        let mut bias: Option<Tensor> = None;
        for block in &self.block[..=wanted] {
            if let Some(table) = &block.relative_attention_bias {
                let positions = self.position_bias(table, length)?;
                bias = Some(match &mask {
                    Some(mask) => positions.broadcast_add(mask)?,
                    None => positions,
                });
            }
            let Some(bias) = &bias else { candle_core::bail!("the first block has no position table") };
            h = block.forward(h, bias, self.config.heads)?;
        }
        let states = if options.final_norm { self.final_layer_norm.forward(&h)? } else { h };
        Ok(TextOutput { states, pooled: None, projected: None })
    }
}

#[cfg(test)]
mod tests {
    use super::relative_bucket;

    #[test]
    fn buckets_of_the_published_encoder() {
        let got: Vec<usize> =
            [0, -1, -7, -8, -15, -16, -128, -500, 1, 8, 64, 127].map(|d| relative_bucket(d, 32)).into();
        assert_eq!(got, [0, 1, 7, 8, 9, 10, 15, 15, 17, 24, 30, 31]);
    }
}
