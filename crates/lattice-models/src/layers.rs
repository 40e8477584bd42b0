//! Layers from a scope, their tensors' shapes checked: a malformed file is found out before anything is computed.

use lattice_kernels::nn::{Conv2d, Conv2dConfig, Embedding, GroupNorm, LayerNorm, Linear, RmsNorm};
use lattice_weights::{Scope, Weight};

use crate::ModelError;
use crate::error::Built;

/// Reads checked tensors and layers of a scope.
pub(crate) trait ScopeExt {
    /// Shape of a tensor that must have `rank` axes, none of them empty.
    fn shape(&self, name: &str, rank: usize) -> Built<Vec<usize>>;
    /// A tensor of exactly that shape.
    fn tensor(&self, name: &str, shape: &[usize]) -> Built<Weight>;
    /// The error of a network that cannot be.
    fn invalid(&self, what: impl std::fmt::Display) -> ModelError;
    /// `weight` [out, in] and `bias` [out].
    fn linear(&self, inputs: usize, outputs: usize) -> Built<Linear>;
    /// `weight` [out, in] alone.
    fn linear_no_bias(&self, inputs: usize, outputs: usize) -> Built<Linear>;
    /// As many linear maps as rows of `weight` [parts * out, in] and `bias` (if there is one) make: fused projections
    /// taken apart, without copying.
    fn linear_parts(&self, inputs: usize, outputs: &[usize]) -> Built<Vec<Linear>>;
    /// Gain [width] under that name.
    fn rms_norm(&self, name: &str, width: usize, eps: f64) -> Built<RmsNorm>;
    /// A 1x1 convolution as a linear map of channels: `weight` [out, in, 1, 1] or [out, in], and `bias` [out].
    fn pointwise(&self, inputs: usize, outputs: usize) -> Built<Linear>;
    /// `weight` [out, in, kernel, kernel] and `bias` [out].
    fn conv2d(&self, inputs: usize, outputs: usize, kernel: usize, config: Conv2dConfig) -> Built<Conv2d>;
    /// `weight` and `bias` [channels].
    fn group_norm(&self, channels: usize, groups: usize, eps: f64) -> Built<GroupNorm>;
    /// `weight` and `bias` [width].
    fn layer_norm(&self, width: usize, eps: f64) -> Built<LayerNorm>;
    /// `weight` [rows, width].
    fn embedding(&self, rows: usize, width: usize) -> Built<Embedding>;
}

fn shape_error(scope: &Scope<'_>, name: &str, found: &[usize], expected: String) -> ModelError {
    ModelError::Shape {
        file: scope.dict().source().to_owned(),
        name: scope.full_name(name),
        found: found.to_vec(),
        expected,
    }
}

impl ScopeExt for Scope<'_> {
    fn shape(&self, name: &str, rank: usize) -> Built<Vec<usize>> {
        let weight = self.weight(name)?;
        let dims = weight.dims();
        if dims.len() == rank && dims.iter().all(|&d| d > 0) {
            Ok(dims.to_vec())
        } else {
            Err(shape_error(self, name, dims, format!("{rank} axes, none of them empty")))
        }
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Built<Weight> {
        let weight = self.weight(name)?;
        if weight.dims() == shape {
            Ok(weight)
        } else {
            Err(shape_error(self, name, weight.dims(), format!("{shape:?}")))
        }
    }

    fn invalid(&self, what: impl std::fmt::Display) -> ModelError {
        ModelError::Invalid { file: self.dict().source().to_owned(), what: what.to_string() }
    }

    fn linear(&self, inputs: usize, outputs: usize) -> Built<Linear> {
        let weight = self.tensor("weight", &[outputs, inputs])?;
        Ok(Linear::new(weight, Some(self.tensor("bias", &[outputs])?))?)
    }

    fn linear_no_bias(&self, inputs: usize, outputs: usize) -> Built<Linear> {
        Ok(Linear::new(self.tensor("weight", &[outputs, inputs])?, None)?)
    }

    fn linear_parts(&self, inputs: usize, outputs: &[usize]) -> Built<Vec<Linear>> {
        let rows = outputs.iter().sum();
        let weight = self.tensor("weight", &[rows, inputs])?;
        let bias = if self.has("bias") { Some(self.tensor("bias", &[rows])?) } else { None };
        let mut start = 0;
        let mut parts = Vec::with_capacity(outputs.len());
        for &len in outputs {
            let bias = bias.as_ref().map(|b| b.narrow_rows(start, len)).transpose()?;
            parts.push(Linear::new(weight.narrow_rows(start, len)?, bias)?);
            start += len;
        }
        Ok(parts)
    }

    fn rms_norm(&self, name: &str, width: usize, eps: f64) -> Built<RmsNorm> {
        Ok(RmsNorm::new(Some(self.tensor(name, &[width])?), eps))
    }

    fn pointwise(&self, inputs: usize, outputs: usize) -> Built<Linear> {
        let weight = self.weight("weight")?;
        if weight.dims() != [outputs, inputs] && weight.dims() != [outputs, inputs, 1, 1] {
            let expected = format!("[{outputs}, {inputs}] or [{outputs}, {inputs}, 1, 1]");
            return Err(shape_error(self, "weight", weight.dims(), expected));
        }
        Ok(Linear::new(weight, Some(self.tensor("bias", &[outputs])?))?)
    }

    fn conv2d(&self, inputs: usize, outputs: usize, kernel: usize, config: Conv2dConfig) -> Built<Conv2d> {
        let weight = self.tensor("weight", &[outputs, inputs, kernel, kernel])?;
        Ok(Conv2d::new(weight, Some(self.tensor("bias", &[outputs])?), config)?)
    }

    fn group_norm(&self, channels: usize, groups: usize, eps: f64) -> Built<GroupNorm> {
        if !channels.is_multiple_of(groups) {
            let name = self.full_name("weight");
            return Err(self.invalid(format!("`{name}`: {channels} channels do not make {groups} groups")));
        }
        let (weight, bias) = (self.tensor("weight", &[channels])?, self.tensor("bias", &[channels])?);
        Ok(GroupNorm::new(weight, bias, groups, eps))
    }

    fn layer_norm(&self, width: usize, eps: f64) -> Built<LayerNorm> {
        let (weight, bias) = (self.tensor("weight", &[width])?, self.tensor("bias", &[width])?);
        Ok(LayerNorm::new(Some(weight), Some(bias), eps))
    }

    fn embedding(&self, rows: usize, width: usize) -> Built<Embedding> {
        Ok(Embedding::new(self.tensor("weight", &[rows, width])?))
    }
}
