//! The CPU generator: an engine, a spare normal value, and the draws made from them.

use super::mt19937::Mt19937;
use super::normal::{BLOCK, NoiseFloat};

/// A seeded stream of random numbers, equal to PyTorch's CPU generator.
#[derive(Clone, Debug)]
pub struct Generator {
    engine: Mt19937,
    /// Second value of the last Box-Muller pair of a small draw; it survives between draws.
    spare: Option<f64>,
}

impl Generator {
    /// A generator seeded with a 64-bit seed, of which the engine takes the low 32 bits.
    pub fn new(seed: u64) -> Self {
        Self { engine: Mt19937::new(seed), spare: None }
    }

    /// Starts anew, as [`Generator::new`] does, in the same memory.
    pub fn reseed(&mut self, seed: u64) {
        self.engine.reseed(seed);
        self.spare = None;
    }

    /// `count` values uniform in [0, 1) with the precision of the type.
    pub fn uniform<T: NoiseFloat>(&mut self, count: usize) -> Vec<T> {
        let mut values = vec![T::from_f64(0.0); count];
        T::fill_uniform(&mut self.engine, &mut values);
        values
    }

    /// `count` integers in `low..high`; an empty range gives `low`.
    pub fn integers(&mut self, low: i64, high: i64, count: usize) -> Vec<i64> {
        let range = high.wrapping_sub(low).cast_unsigned();
        let mut draw = || match range {
            0 => 0,
            1..0x1_0000_0000 => u64::from(self.engine.next_u32()) % range,
            _ => self.engine.next_u64() % range,
        };
        (0..count).map(|_| low.wrapping_add_unsigned(draw())).collect()
    }

    /// A permutation of `0..count` (Fisher-Yates from the front).
    pub fn permutation(&mut self, count: usize) -> Vec<i64> {
        let mut order: Vec<i64> = (0..count as i64).collect();
        for i in 0..count.saturating_sub(1) {
            let offset = self.engine.next_u32() as usize % (count - i);
            order.swap(i, i + offset);
        }
        order
    }

    /// `count` standard normal values. Fewer than 16 come one by one from double-precision Box-Muller pairs (whose
    /// second value is kept for the next such draw); more come in blocks of 16 computed in the type's own precision.
    pub fn normal<T: NoiseFloat>(&mut self, count: usize) -> Vec<T> {
        let mut values = vec![T::from_f64(0.0); count];
        self.fill_normal(&mut values);
        values
    }

    /// Fills a slice as [`Generator::normal`] does.
    pub fn fill_normal<T: NoiseFloat>(&mut self, values: &mut [T]) {
        let count = values.len();
        if count < BLOCK {
            values.fill_with(|| T::from_f64(self.normal_pairwise()));
            return;
        }
        T::fill_uniform(&mut self.engine, values);
        let whole = count - count % BLOCK;
        T::box_muller(&mut values[..whole]);
        if whole < count {
            // The tail is a block of its own over new uniforms; it overwrites part of the block before it.
            let tail = &mut values[count - BLOCK..];
            T::fill_uniform(&mut self.engine, tail);
            T::box_muller(tail);
        }
    }

    /// `count` standard normal values drawn one by one, as fewer than 16 are.
    pub fn normal_singly<T: NoiseFloat>(&mut self, count: usize) -> Vec<T> {
        (0..count).map(|_| T::from_f64(self.normal_pairwise())).collect()
    }

    /// Moves on as if `count` single-precision normal values had been drawn, without computing them.
    pub fn skip_normal(&mut self, count: usize) {
        if count < BLOCK {
            for _ in 0..count {
                self.normal_pairwise();
            }
        } else {
            self.engine.skip(count + if count.is_multiple_of(BLOCK) { 0 } else { BLOCK });
        }
    }

    fn normal_pairwise(&mut self) -> f64 {
        if let Some(value) = self.spare.take() {
            return value;
        }
        let (u1, u2) = (f64::uniform(&mut self.engine), f64::uniform(&mut self.engine));
        let radius = (-2.0 * (-u2).ln_1p()).sqrt();
        let angle = std::f64::consts::TAU * u1;
        self.spare = Some(radius * angle.sin());
        radius * angle.cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_low_half_of_the_seed_counts() {
        let draw = |seed| Generator::new(seed).normal::<f32>(40);
        assert_eq!(draw(7), draw(7 + (1 << 32)));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn skipping_is_drawing() {
        for count in [0, 1, 3, 15, 16, 17, 31, 32, 700, 1000] {
            let (mut drawn, mut skipped) = (Generator::new(3), Generator::new(3));
            drawn.normal::<f32>(count);
            skipped.skip_normal(count);
            assert_eq!(drawn.normal::<f32>(5), skipped.normal::<f32>(5), "after {count}");
        }
    }

    #[test]
    fn the_spare_value_survives_between_small_draws_only() {
        let together = Generator::new(9).normal::<f32>(6);
        let mut apart = Generator::new(9);
        let parts = [apart.normal::<f32>(3), apart.normal::<f32>(3)].concat();
        assert_eq!(together, parts);
        let mut mixed = Generator::new(9);
        assert_eq!(mixed.normal::<f32>(1), together[..1]);
        mixed.normal::<f32>(16);
        assert_eq!(mixed.normal::<f32>(1), together[1..2]);
    }

    #[test]
    fn degenerate_ranges() {
        let mut generator = Generator::new(0);
        assert_eq!(generator.integers(4, 4, 2), [4, 4]);
        assert!(generator.permutation(0).is_empty());
        assert_eq!(generator.permutation(1), [0]);
        assert!(generator.normal::<f32>(0).is_empty());
        let (mut used, fresh) = (Generator::new(3), Generator::new(8).normal::<f32>(5));
        used.normal::<f32>(3);
        used.reseed(8);
        assert_eq!(used.normal::<f32>(5), fresh);
        let wide = generator.integers(i64::MIN, i64::MAX, 8);
        assert!(wide.iter().any(|&v| v < 0) && wide.iter().any(|&v| v > 0));
    }
}
