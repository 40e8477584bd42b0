//! What nodes do to conditionings.

use candle_core::{Result, Tensor};

use super::{Conditioning, Entry, Options};

/// A copy with the options of every entry changed.
#[must_use]
pub fn with_options(list: &Conditioning, change: impl Fn(&mut Options)) -> Conditioning {
    let mut list = list.clone();
    for entry in &mut list {
        change(&mut entry.options);
    }
    list
}

/// Each tensor of `to` with the first one of `from` appended on the token axis.
///
/// # Errors
/// If `from` is empty or the widths differ.
pub fn concat(to: &Conditioning, from: &Conditioning) -> Result<Conditioning> {
    let Some(first) = from.first() else { candle_core::bail!("there is no conditioning to append") };
    let append = |entry: &Entry| {
        let tensor = Tensor::cat(&[&entry.tensor, &first.tensor], 1)?;
        Ok(Entry { tensor, options: entry.options.clone() })
    };
    to.iter().map(append).collect()
}

/// Each tensor of `to` mixed with the first one of `from`: `to k + from (1 - k)`. `from` is cut or padded with zeros to
/// the length of `to`. Pooled vectors are mixed the same if `from` has one (a missing one of `to` counts as equal to
/// it).
///
/// # Errors
/// If `from` is empty or the widths differ.
pub fn average(to: &Conditioning, from: &Conditioning, k: f64) -> Result<Conditioning> {
    let Some(first) = from.first() else { candle_core::bail!("there is no conditioning to mix in") };
    let mix = |to: &Tensor, from: &Tensor| (to * k)? + (from * (1.0 - k))?;
    let tokens = first.tensor.dim(1)?;
    let average = |entry: &Entry| {
        let length = entry.tensor.dim(1)?;
        let from = first.tensor.narrow(1, 0, length.min(tokens))?;
        let from = from.pad_with_zeros(1, 0, length.saturating_sub(tokens))?;
        let mut options = entry.options.clone();
        if let Some(from) = &first.options.pooled {
            options.pooled = Some(mix(options.pooled.as_ref().unwrap_or(from), from)?);
        }
        Ok(Entry { tensor: mix(&entry.tensor, &from)?, options })
    };
    to.iter().map(average).collect()
}

/// Zeros in place of texts and pooled vectors.
///
/// # Errors
/// None that depends on the values.
pub fn zero_out(list: &Conditioning) -> Result<Conditioning> {
    let zero = |entry: &Entry| {
        let mut options = entry.options.clone();
        options.pooled = options.pooled.map(|p| p.zeros_like()).transpose()?;
        Ok(Entry { tensor: entry.tensor.zeros_like()?, options })
    };
    list.iter().map(zero).collect()
}
