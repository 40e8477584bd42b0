//! Batches of tensors of any rank: the first axis.

use candle_core::{Result, Tensor, bail};

/// Exactly `n` items: cut, or repeated from the start.
///
/// # Errors
/// If there is nothing to repeat.
pub fn fit(batch: &Tensor, n: usize) -> Result<Tensor> {
    let have = batch.dim(0)?;
    if have == n {
        return Ok(batch.clone());
    }
    if have > n {
        return batch.narrow(0, 0, n);
    }
    if have == 0 {
        bail!("an empty batch cannot be repeated")
    }
    let copies = vec![batch; n.div_ceil(have)];
    Tensor::cat(&copies, 0)?.narrow(0, 0, n)
}

/// The whole batch `amount` times, one after the other.
///
/// # Errors
/// If `amount` is zero.
pub fn repeat(batch: &Tensor, amount: usize) -> Result<Tensor> {
    Tensor::cat(&vec![batch; amount], 0)
}

/// Start and length of the items that `index` and `length` name in a batch of `n`, both cut to what exists.
pub fn range(n: usize, index: usize, length: usize) -> (usize, usize) {
    let start = index.min(n.saturating_sub(1));
    (start, length.min(n - start))
}

/// Items `[index, index + length)`, cut to what exists.
///
/// # Errors
/// Of tensor operations only.
pub fn slice(batch: &Tensor, index: usize, length: usize) -> Result<Tensor> {
    let (start, length) = range(batch.dim(0)?, index, length);
    batch.narrow(0, start, length)
}

/// At least `n` items: the last one repeated.
///
/// # Errors
/// If the batch is empty.
pub fn extend_last(batch: &Tensor, n: usize) -> Result<Tensor> {
    let have = batch.dim(0)?;
    if have == 0 {
        bail!("an empty batch cannot be extended")
    }
    let mut parts = vec![batch.clone()];
    parts.extend(std::iter::repeat_n(batch.narrow(0, have - 1, 1)?, n.saturating_sub(have)));
    Tensor::cat(&parts, 0)
}

/// Two operands of one batch size: equal, or one of them 1.
pub(crate) fn common(a: &Tensor, b: &Tensor) -> Result<(Tensor, Tensor)> {
    let n = match (a.dim(0)?, b.dim(0)?) {
        (x, y) if x == y => x,
        (1, n) | (n, 1) => n,
        (x, y) => bail!("batches of {x} and {y} do not go together"),
    };
    Ok((fit(a, n)?, fit(b, n)?))
}
