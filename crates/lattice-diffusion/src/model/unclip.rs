//! Pictures as unCLIP models read them (Ramesh et al. 2022, arXiv 2204.06125): embeddings under a known amount of noise.

use candle_core::{DType, Result, Tensor};
use lattice_models::detect::PictureStatistics;

use super::Run;
use super::added::sinusoid;
use crate::conditioning::PicturePrompt;
use crate::noise::{Generator, normal_tensor};

/// Noise levels of the augmentation.
const LEVELS: usize = 1000;

/// What a network reads of some pictures, [1, 2 * width]: an embedding under noise drawn from the run's seed, and the embedded
/// amount of the noise, both times the picture's strength. Several pictures are added up.
///
/// # Errors
/// If an embedding has another width.
pub(super) fn read(
    pictures: &[PicturePrompt],
    statistics: Option<&PictureStatistics>,
    width: usize,
    run: &Run,
) -> Result<Tensor> {
    let statistics = statistics.filter(|s| s.mean.len() == width);
    let mut sum = Tensor::zeros((1, 2 * width), DType::F32, &run.device)?;
    for picture in pictures {
        let (n, found) = picture.embeds.dims2()?;
        if found != width {
            candle_core::bail!(
                "the encoded picture is {found} wide, this model reads pictures {width} wide; was it encoded by another \
                 vision tower?"
            )
        }
        for i in 0..n {
            let embedding = picture.embeds.narrow(0, i, 1)?.to_device(&run.device)?.to_dtype(DType::F32)?;
            let read = augmented(&embedding, picture.noise_augmentation, statistics, run)?;
            sum = (sum + (read * picture.strength)?)?;
        }
    }
    Ok(sum)
}

/// An embedding [1, width] under noise, in the units that it had in training, with the embedded level beside it.
fn augmented(
    embedding: &Tensor,
    amount: f64,
    statistics: Option<&PictureStatistics>,
    run: &Run,
) -> Result<Tensor> {
    let width = embedding.dim(1)?;
    let level = ((LEVELS - 1) as f64 * amount).round_ties_even().clamp(0.0, (LEVELS - 1) as f64);
    let kept = signal_kept(level as usize);
    let noise = normal_tensor(&mut Generator::new(run.seed), &[1, width])?;
    let noise = noise.to_device(&run.device)?;
    let row = |values: &[f32]| Tensor::from_slice(values, (1, width), &run.device);
    let under_noise = |t: &Tensor| (t * kept.sqrt())? + (&noise * (1.0 - kept).sqrt())?;
    let hidden = match statistics {
        None => under_noise(embedding)?,
        Some(PictureStatistics { mean, deviation }) => {
            let (mean, deviation) = (row(mean)?, row(deviation)?);
            let normalised = ((embedding - &mean)? / &deviation)?;
            ((under_noise(&normalised)? * deviation)? + mean)?
        }
    };
    Tensor::cat(&[hidden, row(&sinusoid(level, width))?], 1)
}

/// The share of the signal's variance that is left at a level, of the squared-cosine schedule (Nichol and Dhariwal 2021,
/// arXiv 2102.09672) whose betas are at most 0.999.
fn signal_kept(level: usize) -> f64 {
    let curve = |t: f64| ((t + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2);
    let time = |i: usize| i as f64 / LEVELS as f64;
    (0..=level).map(|i| 1.0 - (1.0 - curve(time(i + 1)) / curve(time(i))).min(0.999)).product()
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn picture(values: &[f32], strength: f64, noise_augmentation: f64) -> PicturePrompt {
        let embeds = Tensor::from_slice(values, (1, values.len()), &Device::Cpu).unwrap();
        PicturePrompt { embeds, strength, noise_augmentation }
    }

    fn values(pictures: &[PicturePrompt], statistics: Option<&PictureStatistics>, seed: u64) -> Vec<f32> {
        let run = Run { seed, ..Run::new(&[1, 4, 8, 8], &Device::Cpu) };
        read(pictures, statistics, 4, &run).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    const PICTURE: [f32; 4] = [0.5, -1.0, 2.0, 0.25];

    #[test]
    fn the_schedule_falls_from_all_signal_to_none() {
        let kept: Vec<f64> = (0..LEVELS).map(signal_kept).collect();
        assert!(kept[0] > 0.9999 && kept[LEVELS - 1] < 1e-8);
        assert!(kept.windows(2).all(|pair| pair[1] < pair[0]));
        // Without the bound the product telescopes.
        let curve = |t: f64| ((t + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2);
        assert!((kept[499] - curve(0.5) / curve(0.0)).abs() < 1e-12);
    }

    #[test]
    fn without_noise_the_picture_is_nearly_itself() {
        let read = values(&[picture(&PICTURE, 1.0, 0.0)], None, 3);
        assert!(read[..4].iter().zip(PICTURE).all(|(a, b)| (a - b).abs() < 0.05), "{read:?}");
        // Level 0: cosines of 0, sines of 0.
        assert_eq!(read[4..], [1.0, 1.0, 0.0, 0.0]);
        let half = values(&[picture(&PICTURE, 0.5, 0.0)], None, 3);
        assert!(read.iter().zip(&half).all(|(a, b)| (a / 2.0 - b).abs() < 1e-6));
    }

    #[test]
    fn full_noise_leaves_the_statistics_of_the_training_pictures() {
        let statistics = PictureStatistics { mean: vec![5.0; 4], deviation: vec![0.0001; 4] };
        let read = values(&[picture(&PICTURE, 1.0, 1.0)], Some(&statistics), 3);
        assert!(read[..4].iter().all(|v| (v - 5.0).abs() < 0.01), "{read:?}");
        assert_eq!(read[4..], sinusoid(999.0, 4));
    }

    #[test]
    fn noise_follows_the_seed_and_pictures_add_up() {
        let one = |seed| values(&[picture(&PICTURE, 1.0, 0.3)], None, seed);
        assert_eq!(one(7), one(7));
        assert_ne!(one(7), one(8));
        let both = values(&[picture(&PICTURE, 0.5, 0.3), picture(&PICTURE, 0.5, 0.3)], None, 7);
        assert!(both.iter().zip(one(7)).all(|(a, b)| (a - b).abs() < 1e-6), "{both:?}");
    }

    #[test]
    fn another_tower_is_refused() {
        let run = Run::new(&[1, 4, 8, 8], &Device::Cpu);
        let error = read(&[picture(&PICTURE, 1.0, 0.0)], None, 5, &run).unwrap_err().to_string();
        assert!(error.contains("4 wide") && error.contains("5 wide"), "{error}");
    }
}
