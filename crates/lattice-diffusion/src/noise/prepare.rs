//! Initial noise of a latent.

use candle_core::{Device, Error, Result, Shape, Tensor};

use super::generator::Generator;

/// Initial noise, and the generator that made it: some samplers go on drawing from the same stream.
#[derive(Clone, Debug)]
pub struct PreparedNoise {
    /// Standard normal f32 values on the CPU.
    pub noise: Tensor,
    /// The generator after the draw.
    pub generator: Generator,
}

/// A draw of the given shape, f32, on the CPU.
pub fn normal_tensor(generator: &mut Generator, shape: impl Into<Shape>) -> Result<Tensor> {
    let shape = shape.into();
    Tensor::from_vec(generator.normal::<f32>(shape.elem_count()), shape, &Device::Cpu)
}

/// Noise for a latent of that shape, [B, ...].
///
/// Without `batch_index` it is one draw of the whole shape. With it, item i of the result is the draw that index
/// `batch_index[i]` would get in a batch drawn item by item: a picture of a batch can be made again alone.
pub fn prepare_noise(shape: &[usize], seed: u64, batch_index: Option<&[usize]>) -> Result<PreparedNoise> {
    let mut generator = Generator::new(seed);
    let Some(indices) = batch_index else {
        let noise = normal_tensor(&mut generator, shape)?;
        return Ok(PreparedNoise { noise, generator });
    };
    let Some((_, item_shape)) = shape.split_first() else {
        return Err(Error::Msg("noise with batch indices needs a batch axis".into()));
    };
    let Some(&last) = indices.iter().max() else {
        return Err(Error::Msg("the list of batch indices is empty".into()));
    };
    let item_shape = [&[1], item_shape].concat();
    let item_len = item_shape.iter().product();
    let mut items: Vec<Option<Tensor>> = vec![None; indices.len()];
    for index in 0..=last {
        if indices.contains(&index) {
            let item = normal_tensor(&mut generator, item_shape.as_slice())?;
            for (slot, _) in items.iter_mut().zip(indices).filter(|&(_, &i)| i == index) {
                *slot = Some(item.clone());
            }
        } else {
            generator.skip_normal(item_len);
        }
    }
    let items: Vec<Tensor> = items.into_iter().flatten().collect();
    Ok(PreparedNoise { noise: Tensor::cat(&items, 0)?, generator })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batch_items_are_those_of_the_drawn_batch() -> Result<()> {
        for item in [[3, 5], [4, 8]] {
            let shape = |n| [n, item[0], item[1]];
            let all = prepare_noise(&shape(4), 11, Some(&[0, 1, 2, 3]))?.noise;
            let some = prepare_noise(&shape(3), 11, Some(&[3, 1, 3]))?.noise;
            for (row, index) in [3, 1, 3].into_iter().enumerate() {
                assert_eq!(
                    some.get(row)?.flatten_all()?.to_vec1::<f32>()?,
                    all.get(index)?.flatten_all()?.to_vec1::<f32>()?
                );
            }
        }
        Ok(())
    }

    #[test]
    fn impossible_requests_are_errors() {
        assert!(prepare_noise(&[1, 4], 0, Some(&[])).is_err());
        assert!(prepare_noise(&[], 0, Some(&[0])).is_err());
        assert_eq!(prepare_noise(&[0, 4], 0, None).unwrap().noise.dims(), [0, 4]);
    }
}
