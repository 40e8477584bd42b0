//! Sinusoidal embeddings of scalars.

use candle_core::{Result, Tensor};

/// Embedding of each value of `t` [B] as [B, width]: cosines then sines of t * 10000^(-i / half), half = width / 2 (Vaswani
/// et al. 2017, section 3.5, with cosines first as in Dhariwal & Nichol 2021). An odd width ends in a zero.
pub(crate) fn timestep_embedding(t: &Tensor, width: usize) -> Result<Tensor> {
    let values = t.flatten_all()?.to_dtype(candle_core::DType::F32)?.to_vec1::<f32>()?;
    let half = width / 2;
    let frequencies: Vec<f32> =
        (0..half).map(|i| (-(10000f64.ln()) as f32 * i as f32 / half as f32).exp()).collect();
    let mut rows = Vec::with_capacity(values.len() * width);
    for value in &values {
        rows.extend(frequencies.iter().map(|f| (value * f).cos()));
        rows.extend(frequencies.iter().map(|f| (value * f).sin()));
        rows.resize(rows.len() + width % 2, 0.0);
    }
    Tensor::from_vec(rows, (values.len(), width), t.device())
}
