//! Attention against plain loops.

mod common;

use candle_core::{Device, Tensor};
use common::{assert_close, values};
use lattice_kernels::ops::attention;
use proptest::prelude::*;

/// The definition in f64. `bias` is indexed by (batch, head, query, key).
fn plain(
    [q, k, v]: [&[f32]; 3],
    [batch, heads, queries, keys, width]: [usize; 5],
    scale: f32,
    bias: impl Fn(usize, usize, usize, usize) -> f32,
    causal: bool,
) -> Vec<f64> {
    let all = heads * width;
    let mut out = vec![0f64; batch * queries * all];
    for (b, h, i) in
        (0..batch).flat_map(|b| (0..heads).flat_map(move |h| (0..queries).map(move |i| (b, h, i))))
    {
        let row = |x: &[f32], length: usize, position: usize| -> Vec<f64> {
            let at = (b * length + position) * all + h * width;
            x[at..at + width].iter().map(|&x| f64::from(x)).collect()
        };
        let query = row(q, queries, i);
        let scores: Vec<f64> = (0..keys)
            .map(|j| {
                let dot: f64 = query.iter().zip(row(k, keys, j)).map(|(a, b)| a * b).sum();
                if causal && j > i {
                    f64::NEG_INFINITY
                } else {
                    dot * f64::from(scale) + f64::from(bias(b, h, i, j))
                }
            })
            .collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if max == f64::NEG_INFINITY {
            continue;
        }
        let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let at = (b * queries + i) * all + h * width;
        for (j, weight) in weights.iter().enumerate() {
            for (o, v) in out[at..at + width].iter_mut().zip(row(v, keys, j)) {
                *o += weight / sum * v;
            }
        }
    }
    out
}

fn tensor(x: &[f32], dims: &[usize]) -> Tensor {
    Tensor::from_vec(x.to_vec(), dims, &Device::Cpu).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn equals_plain_loops(
        batch in 0usize..3,
        heads in 1usize..4,
        queries in prop_oneof![0usize..5, 20usize..80],
        keys in prop_oneof![0usize..5, 20usize..90, 500usize..600],
        width in prop_oneof![0usize..10, 40usize..90, Just(160), Just(512)],
        // Which axes of the bias are whole (others have size 1).
        bias in prop::option::of(prop::array::uniform4(any::<bool>())),
        masked: bool,
        causal: bool,
        scale in 0.05f32..2.0,
        layout in 0usize..3,
        seed: u32,
    ) {
        let scale = scale / (width.max(1) as f32).sqrt();
        let all = heads * width;
        let q = values(batch * queries * all, seed);
        let k = values(batch * keys * all, seed.wrapping_add(1));
        let v = values(batch * keys * all, seed.wrapping_add(2));
        let (q_dims, k_dims) = ([batch, queries, all], [batch, keys, all]);
        let mut tensors = [tensor(&q, &q_dims), tensor(&k, &k_dims), tensor(&v, &k_dims)];
        match layout {
            // Halves of a joint projection.
            1 => {
                let both = Tensor::cat(&tensors[1..], 2).unwrap();
                tensors[1] = both.narrow(2, 0, all).unwrap();
                tensors[2] = both.narrow(2, all, all).unwrap();
            }
            2 => for t in &mut tensors {
                *t = t.transpose(1, 2).unwrap().contiguous().unwrap().transpose(1, 2).unwrap();
            },
            _ => {}
        }
        let bias_dims = bias.map(|whole| {
            let sizes = [batch, heads, queries, keys];
            std::array::from_fn::<_, 4, _>(|i| if whole[i] { sizes[i] } else { 1 })
        });
        let bias_values = bias_dims.map(|dims| {
            let mut values = values(dims.iter().product(), seed.wrapping_add(3));
            if masked {
                values.iter_mut().step_by(3).for_each(|x| *x = f32::NEG_INFINITY);
            }
            values
        });
        let bias_tensor = bias_dims.zip(bias_values.as_ref()).map(|(dims, values)| tensor(values, &dims));
        let bias_at = |b: usize, h: usize, i: usize, j: usize| match (&bias_values, bias_dims) {
            (Some(values), Some(dims)) => {
                let at = [b, h, i, j].iter().zip(dims).fold(0, |at, (&x, d)| at * d + if d == 1 { 0 } else { x });
                values[at]
            }
            _ => 0.0,
        };
        let [tq, tk, tv] = &tensors;
        let y = attention(tq, tk, tv, heads, scale, bias_tensor.as_ref(), causal).unwrap();
        prop_assert_eq!(y.dims(), q_dims);
        let want = plain([&q, &k, &v], [batch, heads, queries, keys, width], scale, bias_at, causal);
        assert_close(&y, &want, 2e-6)?;
    }
}

#[test]
fn large_scores_do_not_overflow() {
    let (length, width) = (300, 8);
    let q: Vec<f32> = values(length * width, 1).iter().map(|x| x * 100.0).collect();
    let k: Vec<f32> = values(length * width, 2).iter().map(|x| x * 100.0).collect();
    let v = values(length * width, 3);
    let dims = [1, length, width];
    let y =
        attention(&tensor(&q, &dims), &tensor(&k, &dims), &tensor(&v, &dims), 1, 1.0, None, false).unwrap();
    let want = plain([&q, &k, &v], [1, 1, length, length, width], 1.0, |_, _, _, _| 0.0, false);
    // Scores reach 1e5, so that their rounding (1e5 * 6e-8) shows in the weights.
    assert_close(&y, &want, 2e-2).unwrap();
}

#[test]
fn wrong_shapes_are_errors() {
    let x = |dims: &[usize]| tensor(&vec![0.0; dims.iter().product()], dims);
    let q = x(&[1, 4, 6]);
    let attend =
        |k: &Tensor, v: &Tensor, heads, bias: Option<&Tensor>| attention(&q, k, v, heads, 1.0, bias, false);
    assert!(attend(&q, &q, 2, None).is_ok());
    assert!(attend(&q, &q, 4, None).is_err());
    assert!(attend(&q, &q, 0, None).is_err());
    assert!(attend(&x(&[1, 4, 8]), &x(&[1, 4, 8]), 2, None).is_err());
    assert!(attend(&x(&[2, 4, 6]), &x(&[2, 4, 6]), 2, None).is_err());
    assert!(attend(&q, &x(&[1, 5, 6]), 2, None).is_err());
    assert!(attend(&q, &q, 2, Some(&x(&[3, 4]))).is_err());
}
