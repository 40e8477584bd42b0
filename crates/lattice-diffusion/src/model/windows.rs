//! Models that see only a part of a long latent at a time: windows that overlap and are mixed (as AnimateDiff-Evolved does for
//! videos longer than its network was trained on).

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{Result, Tensor};

use super::{Call, ListRole, ModelInputs, ModelWrapper, NoiseModel, Run};
use crate::ModelSampling;
use crate::conditioning::{ActiveHook, Entry};
use crate::latent_format::LatentFormat;

/// Which windows there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowSchedule {
    /// The same at every step; the last one ends with the latent.
    StandardStatic,
    /// Shifted from step to step, with strides; those that would run over the end are moved to it.
    StandardUniform,
    /// Shifted from step to step, with strides; over the end they go on at the beginning.
    LoopedUniform,
    /// One beside the other.
    Batched,
}

/// How much each place of a window counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fuse {
    /// Most in the middle, in equal steps.
    Pyramid,
    /// Most in the middle, almost nothing at the ends.
    Relative,
    /// All the same.
    Flat,
    /// Rising and falling where windows overlap.
    OverlapLinear,
}

/// Windows along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Places of a window.
    pub length: usize,
    /// Places that neighbours share.
    pub overlap: usize,
    /// Which there are.
    pub schedule: WindowSchedule,
    /// How many strides the uniform schedules use: 1, 2, 4, ...
    pub stride: usize,
    /// Whether the last window of a looped schedule shares places with the first.
    pub closed_loop: bool,
    /// How they are mixed.
    pub fuse: Fuse,
    /// The axis: 0 the batch, 2 the frames of a video.
    pub axis: usize,
}

impl Windows {
    /// The windows over `count` places at a step.
    pub fn at(&self, count: usize, step: usize) -> Vec<Vec<usize>> {
        let length = self.length.max(1);
        if count <= length {
            return vec![(0..count).collect()];
        }
        match self.schedule {
            WindowSchedule::Batched => (0..count)
                .step_by(length)
                .map(|start| (start..(start + length).min(count)).collect())
                .collect(),
            WindowSchedule::StandardStatic => {
                let advance = length.saturating_sub(self.overlap).max(1);
                let mut windows = Vec::new();
                for start in (0..count).step_by(advance) {
                    let end = start + length;
                    if end >= count {
                        windows.push((count - length..count).collect());
                        break;
                    }
                    windows.push((start..end).collect());
                }
                windows
            }
            WindowSchedule::LoopedUniform => self.uniform(count, step, self.closed_loop),
            WindowSchedule::StandardUniform => unlooped(self.uniform(count, step, true), count, length),
        }
    }

    /// Windows of each stride from a start that differs from step to step.
    fn uniform(&self, count: usize, step: usize, closed: bool) -> Vec<Vec<usize>> {
        let length = self.length.max(1);
        let most = (count as f64 / length as f64).log2().ceil().max(0.0) as usize + 1;
        let shift = halved_order(step);
        let pad = (count as f64 * shift).round_ties_even() as usize;
        let mut windows = Vec::new();
        for stride in (0..self.stride.clamp(1, most)).map(|i| 1usize << i) {
            let advance = (length * stride).saturating_sub(self.overlap).max(1);
            let end = (count + pad).saturating_sub(if closed { 0 } else { self.overlap });
            let start = (shift * stride as f64) as usize + pad;
            for first in (start..end).step_by(advance) {
                windows.push((0..length).map(|i| (first + i * stride) % count).collect());
            }
        }
        windows
    }

    /// How much each place of a window over `count` places counts.
    fn weights(&self, window: &[usize], count: usize) -> Vec<f32> {
        let n = window.len();
        let from_end = |i: usize| (i + 1).min(n - i) as f32;
        match self.fuse {
            Fuse::Flat => vec![1.0; n],
            Fuse::Pyramid => (0..n).map(from_end).collect(),
            Fuse::Relative => {
                let middle = (n as f32 - 1.0) / 2.0;
                let reach = middle + 5e-3;
                (0..n).map(|i| (1.0 - (i as f32 - middle).abs() / reach).max(1e-2)).collect()
            }
            Fuse::OverlapLinear => {
                let overlap = self.overlap.min(n);
                let ramp = |i: usize| match overlap {
                    0 | 1 => 1.0,
                    _ => (i as f32 / (overlap - 1) as f32).max(1e-37),
                };
                let (starts, ends) = (window.first() == Some(&0), window.last() == Some(&(count - 1)));
                (0..n)
                    .map(|i| {
                        let up = if !starts && i < overlap { ramp(i) } else { 1.0 };
                        let down = if !ends && n - 1 - i < overlap { ramp(n - 1 - i) } else { 1.0 };
                        up.min(down)
                    })
                    .collect()
            }
        }
    }
}

/// The bits of a step in reverse order, as a fraction: 0, 1/2, 1/4, 3/4, 1/8, ...
fn halved_order(step: usize) -> f64 {
    (step as u64).reverse_bits() as f64 / 2f64.powi(64)
}

/// Windows that run over the end are moved to it, with another in the place of what they covered at the beginning; doubles are
/// dropped.
fn unlooped(windows: Vec<Vec<usize>>, count: usize, length: usize) -> Vec<Vec<usize>> {
    let mut out: Vec<Vec<usize>> = Vec::new();
    let mut add = |window: Vec<usize>| {
        if !out.contains(&window) {
            out.push(window);
        }
    };
    for (i, window) in windows.iter().enumerate() {
        match window.windows(2).position(|pair| pair[1] < pair[0]) {
            None => add(window.clone()),
            Some(before) => {
                let behind = count - 1 - window[before];
                let last = window[before] + behind;
                let shift = last - window[before];
                // The part before the end, moved so that the whole window ends with it.
                let stride = if length > 1 { (window[1] + count - window[0]) % count } else { 1 }.max(1);
                let whole: Vec<usize> = (0..length)
                    .rev()
                    .filter_map(|k| (window[before] + shift).checked_sub(k * stride))
                    .collect();
                add(if whole.len() == length { whole } else { (count - length..count).collect() });
                let first = window[before + 1];
                let next = &windows[(i + 1) % windows.len()];
                if !next.contains(&first) && first + length <= count {
                    add((first..first + length).collect());
                }
            }
        }
    }
    // Every place is seen at least once.
    let seen = |place: usize, out: &[Vec<usize>]| out.iter().any(|window| window.contains(&place));
    let mut place = 0;
    while place < count {
        if seen(place, &out) {
            place += 1;
        } else {
            let first = place.min(count - length);
            out.push((first..first + length).collect());
        }
    }
    out
}

impl ModelWrapper for Windows {
    fn wrap(&self, model: Arc<dyn NoiseModel>) -> Arc<dyn NoiseModel> {
        Arc::new(Windowed { model, windows: *self, step: Arc::default() })
    }
}

/// A model that sees windows.
struct Windowed {
    model: Arc<dyn NoiseModel>,
    windows: Windows,
    /// The noise level of the last call, and how many there were before.
    step: Arc<Mutex<Option<(u64, usize)>>>,
}

impl Windowed {
    /// The number of a noise level among those of the run.
    fn step(&self, sigma: f64) -> usize {
        let mut step = self.step.lock().unwrap_or_else(PoisonError::into_inner);
        let number = match *step {
            None => 0,
            Some((last, number)) if last == sigma.to_bits() => number,
            Some((_, number)) => number + 1,
        };
        *step = Some((sigma.to_bits(), number));
        number
    }

    /// Rows of a batch in which each of `entries` has its window's items.
    fn rows(window: &[usize], count: usize, entries: usize) -> Vec<u32> {
        (0..entries).flat_map(|entry| window.iter().map(move |i| (entry * count + i) as u32)).collect()
    }
}

impl NoiseModel for Windowed {
    fn sampling(&self) -> &ModelSampling {
        self.model.sampling()
    }

    fn latent_channels(&self) -> usize {
        self.model.latent_channels()
    }

    fn latent_format(&self) -> Option<&'static LatentFormat> {
        self.model.latent_format()
    }

    fn resolve(&self, entry: &Entry, role: ListRole, run: &Run) -> Result<ModelInputs> {
        self.model.resolve(entry, role, run)
    }

    fn denoised(&self, x: &Tensor, sigma: f64, inputs: &ModelInputs, call: Call<'_>) -> Result<Tensor> {
        let axis = self.windows.axis;
        if axis == 1 || axis >= x.rank() {
            candle_core::bail!("a latent of {} axes cannot be cut into windows along axis {axis}", x.rank())
        }
        let entries = if axis == 0 { call.entries.max(1) } else { 1 };
        let count = x.dim(axis)? / entries;
        let windows = self.windows.at(count, self.step(sigma));
        if windows.len() == 1 && windows[0].len() == count {
            return self.model.denoised(x, sigma, inputs, call);
        }
        if axis == 0 && call.control.is_some() {
            candle_core::bail!("control networks and windows along the batch cannot be used together")
        }
        let mut sum = x.zeros_like()?;
        let mut total = vec![0f32; x.dim(axis)?];
        for window in &windows {
            let rows = Self::rows(window, count, entries);
            let index = Tensor::new(rows.as_slice(), x.device())?;
            let pick = |t: &Tensor| t.index_select(&index, axis);
            let part = match axis {
                0 => inputs.map(pick)?,
                _ => ModelInputs {
                    concat: inputs
                        .concat
                        .as_ref()
                        .map(|concat| match concat.dim(axis) {
                            Ok(n) if n == count => pick(concat),
                            _ => Ok(concat.clone()),
                        })
                        .transpose()?,
                    ..inputs.clone()
                },
            };
            let denoised = self.model.denoised(&pick(x)?.contiguous()?, sigma, &part, call)?;
            let weights = self.windows.weights(window, count);
            for (row, weight) in rows.iter().zip(weights.iter().cycle()) {
                total[*row as usize] += weight;
            }
            let weights: Vec<f32> = weights.iter().copied().cycle().take(rows.len()).collect();
            let weighted = denoised.broadcast_mul(&along(weights, axis, x)?)?;
            sum = sum.index_add(&index, &weighted.contiguous()?, axis)?;
        }
        sum.broadcast_div(&along(total, axis, x)?)
    }

    fn hooked(&self, hooks: &[ActiveHook]) -> Result<Arc<dyn NoiseModel>> {
        let model = self.model.hooked(hooks)?;
        Ok(Arc::new(Self { model, windows: self.windows, step: self.step.clone() }))
    }

    fn context_repeats(&self) -> bool {
        self.model.context_repeats()
    }

    fn fits_in_memory(&self, shape: &[usize]) -> bool {
        let mut shape = shape.to_vec();
        if let Some(size) = shape.get_mut(self.windows.axis).filter(|_| self.windows.axis != 0) {
            *size = (*size).min(self.windows.length.max(1));
        }
        self.model.fits_in_memory(&shape)
    }
}

/// Numbers along an axis, with as many axes as `like`.
fn along(values: Vec<f32>, axis: usize, like: &Tensor) -> Result<Tensor> {
    let mut shape = vec![1; like.rank()];
    shape[axis] = values.len();
    Tensor::from_vec(values, shape, like.device())?.to_dtype(like.dtype())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(schedule: WindowSchedule, length: usize, overlap: usize, stride: usize) -> Windows {
        Windows { length, overlap, schedule, stride, closed_loop: false, fuse: Fuse::Pyramid, axis: 2 }
    }

    const SCHEDULES: [WindowSchedule; 4] = [
        WindowSchedule::StandardStatic,
        WindowSchedule::StandardUniform,
        WindowSchedule::LoopedUniform,
        WindowSchedule::Batched,
    ];

    #[test]
    fn static_windows_end_with_the_latent() {
        let at = |count| windows(WindowSchedule::StandardStatic, 4, 1, 1).at(count, 5);
        assert_eq!(at(3), [[0, 1, 2]]);
        assert_eq!(at(9), [[0, 1, 2, 3], [3, 4, 5, 6], [5, 6, 7, 8]]);
        assert_eq!(at(7), [[0, 1, 2, 3], [3, 4, 5, 6]]);
        let batched = windows(WindowSchedule::Batched, 4, 1, 1).at(6, 0);
        assert_eq!(batched, [vec![0, 1, 2, 3], vec![4, 5]]);
    }

    #[test]
    fn every_place_is_seen_inside_of_the_latent() {
        for schedule in SCHEDULES {
            for (length, overlap, stride) in [(4, 1, 1), (4, 3, 2), (5, 0, 3), (1, 0, 1), (6, 9, 1)] {
                for count in 1..30 {
                    for step in 0..9 {
                        let mut windows = windows(schedule, length, overlap, stride);
                        windows.closed_loop = step % 2 == 1 || schedule == WindowSchedule::LoopedUniform;
                        let all = windows.at(count, step);
                        assert!(all.iter().flatten().all(|&i| i < count));
                        let seen = (0..count).all(|i| all.iter().any(|window| window.contains(&i)));
                        assert!(
                            seen,
                            "{schedule:?} {length} {overlap} {stride}: {count} places, step {step}: {all:?}"
                        );
                        for window in &all {
                            let weights = windows.weights(window, count);
                            assert!(weights.iter().all(|w| *w > 0.0));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn weights() {
        let of = |fuse, window: &[usize]| {
            Windows { fuse, ..windows(WindowSchedule::StandardStatic, 5, 3, 1) }.weights(window, 20)
        };
        let middle = [5, 6, 7, 8, 9];
        assert_eq!(of(Fuse::Flat, &middle), [1.0; 5]);
        assert_eq!(of(Fuse::Pyramid, &middle), [1.0, 2.0, 3.0, 2.0, 1.0]);
        assert_eq!(of(Fuse::Pyramid, &middle[..4]), [1.0, 2.0, 2.0, 1.0]);
        assert_eq!(of(Fuse::OverlapLinear, &middle), [1e-37, 0.5, 1.0, 0.5, 1e-37]);
        assert_eq!(of(Fuse::OverlapLinear, &[0, 1, 2, 3, 4]), [1.0, 1.0, 1.0, 0.5, 1e-37]);
        let relative = of(Fuse::Relative, &middle);
        assert!(relative[2] == 1.0 && relative[0] == 1e-2 && relative[1] > 0.4 && relative[1] < 0.6);
        assert_eq!([0, 1, 2, 3, 4].map(halved_order), [0.0, 0.5, 0.25, 0.75, 0.125]);
    }
}
