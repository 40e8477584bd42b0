//! Linear layers.

use candle_core::{D, Result, Tensor, bail};

use crate::activation::Activation;
use crate::gemm::Finish;
use crate::tensor::{filled, on_cpu, with_slice};
use crate::{Weight, ops};

/// y = x W^T + b over the last axis. Weight [out, in] (trailing unit axes are dropped), bias [out].
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Weight,
    bias: Option<Weight>,
}

impl Linear {
    /// From a weight of shape [out, in], or a 1x1 convolution's [out, in, 1, 1].
    ///
    /// # Errors
    /// If the weight is not a matrix, or the bias has not one element per row of it.
    pub fn new(weight: Weight, bias: Option<Weight>) -> Result<Self> {
        let dims = weight.dims();
        if dims.len() < 2 {
            bail!("the weight of a linear layer is a matrix, got shape {:?}", weight.shape())
        }
        let weight = if dims.len() > 2 {
            weight.reshape((dims[0], dims[1..].iter().product::<usize>()))?
        } else {
            weight
        };
        if let Some(b) = &bias
            && b.elem_count() != weight.dims()[0]
        {
            bail!("bias of shape {:?} on a linear layer of weight {:?}", b.shape(), weight.shape())
        }
        Ok(Self { weight, bias })
    }

    /// Width of the result.
    pub fn out_features(&self) -> usize {
        self.weight.dims()[0]
    }

    /// Width of the input.
    pub fn in_features(&self) -> usize {
        self.weight.dims()[1]
    }

    /// x [.., in] to [.., out].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_activation(x, Activation::None)
    }

    /// activation(x W^T + b), x [.., in] to [.., out].
    pub fn forward_activation(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        if !on_cpu(x) {
            return ops::activation(&self.forward_device(x)?, activation);
        }
        self.run(x, None, Finish::Activation(activation))
    }

    /// x W^T + b + residual, x [.., in] and residual [.., out] to [.., out].
    pub fn forward_residual(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        if !on_cpu(x) {
            return self.forward_device(x)? + residual;
        }
        self.run(x, Some(residual), Finish::Activation(Activation::None))
    }

    /// The gated linear unit of Shazeer 2020: with x W^T + b = [value, gate] side by side, value * activation(gate).
    /// x [.., in] to [.., out / 2]. GEGLU with [`Activation::Gelu`].
    ///
    /// # Errors
    /// If the layer has an odd number of outputs.
    pub fn forward_gated(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        if !self.out_features().is_multiple_of(2) {
            bail!("a gated layer has an even number of outputs, got {}", self.out_features())
        }
        if !on_cpu(x) {
            let y = self.forward_device(x)?.chunk(2, D::Minus1)?;
            return &y[0] * ops::activation(&y[1].contiguous()?, activation)?;
        }
        self.run(x, None, Finish::Gated(activation))
    }

    fn run(&self, x: &Tensor, residual: Option<&Tensor>, finish: Finish) -> Result<Tensor> {
        let width =
            if matches!(finish, Finish::Gated(_)) { self.out_features() / 2 } else { self.out_features() };
        let mut dims = x.dims().to_vec();
        match dims.last_mut() {
            Some(last) if *last == self.in_features() => *last = width,
            _ => bail!("a linear layer of {} inputs cannot take {:?}", self.in_features(), x.shape()),
        }
        if let Some(r) = residual
            && r.dims() != dims
        {
            bail!("residual {:?} does not have the shape {dims:?} of the result", r.shape())
        }
        let bias = self.bias.as_ref().map(Weight::f32_cached);
        let residual = residual.map(Tensor::contiguous).transpose()?;
        with_slice(x, |x_data| {
            let fill = |residual: Option<&[f32]>, out: &mut [f32]| {
                crate::linear::linear(x_data, &self.weight, bias.as_deref(), residual, finish, out);
            };
            // SAFETY: `linear` writes every element of the result.
            unsafe {
                match &residual {
                    Some(r) => with_slice(r, |r| filled(dims, x, |out| fill(Some(r), out))),
                    None => filled(dims, x, |out| fill(None, out)),
                }
            }
        })
    }

    /// The same with candle's operations, for devices other than the CPU.
    fn forward_device(&self, x: &Tensor) -> Result<Tensor> {
        let w = self.weight.to_tensor(x.device())?;
        let mut dims = x.dims().to_vec();
        let width = x.dim(D::Minus1)?;
        let y = x.reshape(((), width))?.matmul(&w.t()?)?;
        let y = match &self.bias {
            Some(b) => y.broadcast_add(&b.to_tensor(x.device())?.flatten_all()?)?,
            None => y,
        };
        if let Some(last) = dims.last_mut() {
            *last = self.out_features();
        }
        y.reshape(dims)
    }
}
