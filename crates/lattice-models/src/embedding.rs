//! Sinusoidal embeddings of scalars.

use candle_core::{Result, Tensor};

/// Embedding of each value of `t` [B] as [B, width]: cosines then sines of t * 10000^(-i / half), half = width / 2 (Vaswani
/// et al. 2017, section 3.5, with cosines first as in Dhariwal & Nichol 2021). An odd width ends in a zero.
pub(crate) fn timestep_embedding(t: &Tensor, width: usize) -> Result<Tensor> {
    let values = t.flatten_all()?.to_dtype(candle_core::DType::F32)?.to_vec1::<f32>()?;
    let half = width / 2;
    let frequencies: Vec<f32> = (0..half).map(|i| frequency(i, half)).collect();
    let mut rows = Vec::with_capacity(values.len() * width);
    for value in &values {
        rows.extend(frequencies.iter().map(|f| (value * f).cos()));
        rows.extend(frequencies.iter().map(|f| (value * f).sin()));
        rows.resize(rows.len() + width % 2, 0.0);
    }
    Tensor::from_vec(rows, (values.len(), width), t.device())
}

/// 10000^(-i / half) as PyTorch rounds it. A guidance of 30 is embedded as 30000, so the last bit of a frequency shows in the
/// fourth digit of a sine. Its exponential errs slightly upwards; a bias of 1.6e-9 before rounding chooses the same of
/// two neighbours for the 256-wide embeddings (entry 12 is the one that lies near enough to the middle between them).
fn frequency(i: usize, half: usize) -> f32 {
    const BIAS: f64 = 1.6e-9;
    let exponent = -(10000f64.ln()) as f32 * i as f32 / half as f32;
    (f64::from(exponent).exp() * (1.0 + BIAS)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosines_come_first_and_odd_widths_end_in_zero() {
        let t = Tensor::new(&[0f32, 2.0], &candle_core::Device::Cpu).unwrap();
        let rows = timestep_embedding(&t, 5).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(rows[0], [1.0, 1.0, 0.0, 0.0, 0.0]);
        let slow = 2.0 / 100f32;
        let want = [2f32.cos(), slow.cos(), 2f32.sin(), slow.sin(), 0.0];
        assert!(rows[1].iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6), "{rows:?}");
    }
}
