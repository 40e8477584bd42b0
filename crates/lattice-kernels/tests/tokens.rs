//! Pictures as tokens and back against plain loops.

mod common;

use common::{assert_close, laid_out, values};
use lattice_kernels::ops;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn tokens_equal_plain_loops(
        (batch, channels, height, width) in (0usize..3, 0usize..150, 0usize..20, 0usize..20),
        transposed: bool,
        seed: u32,
    ) {
        let cells = height * width;
        let n = batch * channels * cells;
        let (x, y) = (values(n, seed), values(n, seed.wrapping_add(1)));
        // Element i of [B, cells, C] lies here in [B, C, cells].
        let place = |i: usize| (i / (cells * channels) * channels + i % channels) * cells + i / channels % cells;
        let picture = laid_out(&x, &[batch, channels, height, width], transposed);
        let turned: Vec<f64> = (0..n).map(|i| f64::from(x[place(i)])).collect();
        let tokens = ops::to_tokens(&picture).unwrap();
        prop_assert_eq!(tokens.dims(), &[batch, cells, channels]);
        assert_close(&tokens, &turned, 0.0)?;

        let mut sum: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
        for (i, &y) in y.iter().enumerate() {
            sum[place(i)] += f64::from(y);
        }
        let added = ops::add_tokens(&picture, &laid_out(&y, &[batch, cells, channels], transposed)).unwrap();
        prop_assert_eq!(added.dims(), picture.dims());
        assert_close(&added, &sum, 1e-6)?;
    }
}
