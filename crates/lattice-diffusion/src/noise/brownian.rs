//! The virtual Brownian tree: W(t) of one path, at any time, from a seed.
//!
//! Li et al. 2020, "Scalable Gradients for Stochastic Differential Equations" (arXiv 2001.01328), section 4, and
//! Kidger et al. 2021, "Efficient and Accurate Gradients for Neural SDEs" (arXiv 2105.13493). An interval's increment
//! is split at its middle by a Brownian bridge whose noise depends on the seed and the node's address alone, so the
//! path does not depend on the order or the number of queries. The times, addresses and roundings are those of
//! torchsde's tree with tolerance 1e-6.

use std::collections::VecDeque;
use std::rc::Rc;

use thiserror::Error;

use super::generator::Generator;
use super::seed_sequence::SeedSequence;

/// Why a tree cannot be built or asked.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum BrownianError {
    /// The interval is empty, reversed or not finite.
    #[error("a Brownian path needs finite times t0 < t1, not {0} and {1}")]
    Interval(f64, f64),
    /// A query that is no time.
    #[error("a Brownian path cannot be asked from {0} to {1}")]
    Query(f64, f64),
    /// The interval is so much longer than a micro-unit that its nodes have no 128-bit address.
    #[error("the times {0} to {1} are too far apart for a Brownian tree of tolerance 1e-6")]
    TooDeep(f64, f64),
}

/// Nodes remembered between queries: two root-to-leaf paths of a usual schedule.
const REMEMBERED_NODES: usize = 64;
/// Bytes that remembered nodes may take.
const REMEMBERED_BYTES: usize = 256 << 20;

/// A path of `len` independent Brownian motions on [t0, t1].
#[derive(Clone, Debug)]
pub struct BrownianTree {
    len: usize,
    root: Node,
    /// Spawns the seeds of the nodes.
    sequence: SeedSequence,
    /// Seeded anew at every node.
    generator: Generator,
    /// Increments of recently visited nodes, newest last.
    memo: VecDeque<(Address, Rc<[f32]>)>,
    /// Memory that increments of forgotten nodes leave to new ones.
    spare: Vec<Rc<[f32]>>,
}

/// Position in the tree: the root is key 0, depth 0; children have keys 2k and 2k + 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Address {
    key: u128,
    depth: u32,
}

#[derive(Clone, Debug)]
struct Node {
    address: Address,
    from: f64,
    to: f64,
    increment: Rc<[f32]>,
}

/// Nearest multiple of 1e-6 as a decimal number, ties to even: what Python's `round(t, 6)` gives.
fn round_micro(t: f64) -> f64 {
    let scaled = t * 1e6;
    // Below this the product is off by less than a ten-thousandth: only beside a tie can that matter.
    if scaled.abs() < 1e12 && (scaled - scaled.floor() - 0.5).abs() > 1e-3 {
        return scaled.round_ties_even() / 1e6;
    }
    // Formatting rounds the exact binary value.
    format!("{t:.6}").parse().unwrap_or(t)
}

impl BrownianTree {
    /// The path of a seed on [t0, t1], for `len` elements.
    pub fn new(t0: f64, t1: f64, seed: u64, len: usize) -> Result<Self, BrownianError> {
        if !(t0.is_finite() && t1.is_finite() && t0 < t1) {
            return Err(BrownianError::Interval(t0, t1));
        }
        let sequence = SeedSequence::new(seed, &[]);
        let mut generator = Generator::new(sequence.first_word().into());
        let mut increment = generator.normal(len);
        let scale = (t1 - t0).sqrt() as f32;
        for w in &mut increment {
            *w *= scale;
        }
        let root = Node {
            address: Address { key: 0, depth: 0 },
            from: round_micro(t0),
            to: round_micro(t1),
            increment: increment.into(),
        };
        Ok(Self { len, root, sequence, generator, memo: VecDeque::new(), spare: Vec::new() })
    }

    /// W(to) - W(from) for `from` < `to`, both clamped to the interval; zeros where they coincide.
    pub fn increment(&mut self, from: f64, to: f64) -> Result<Vec<f32>, BrownianError> {
        if from.is_nan() || to.is_nan() || from > to {
            return Err(BrownianError::Query(from, to));
        }
        let clamp = |t: f64| round_micro(t.max(self.root.from).min(self.root.to));
        let (from, to) = (clamp(from), clamp(to));
        let mut sum = Sum(None);
        if from < to {
            self.collect(self.root.clone(), from, to, &mut sum)?;
        }
        Ok(sum.0.unwrap_or_else(|| vec![0.0; self.len]))
    }

    /// Noise of a solver's step from `sigma` to `next`: the increment between them over the root of their distance,
    /// negative where time runs downwards.
    pub fn step_noise(&mut self, sigma: f64, next: f64) -> Result<Vec<f32>, BrownianError> {
        let mut noise = self.increment(sigma.min(next), sigma.max(next))?;
        let distance = ((next as f32) - (sigma as f32)).abs().sqrt();
        let divisor = if sigma > next { -distance } else { distance };
        if divisor != 0.0 {
            for w in &mut noise {
                *w /= divisor;
            }
        }
        Ok(noise)
    }

    /// Adds the increments of the largest nodes that make up [from, to], left to right.
    fn collect(&mut self, node: Node, from: f64, to: f64, sum: &mut Sum) -> Result<(), BrownianError> {
        if from <= node.from && node.to <= to {
            sum.add(&node.increment);
            self.release(node.increment);
            return Ok(());
        }
        let middle = round_micro(f64::midpoint(node.from, node.to));
        if middle <= node.from || middle >= node.to {
            // Nothing between neighbouring times; a query's edges are times, so it covers this node or none of it.
            self.release(node.increment);
            return Ok(());
        }
        let left = self.left_half(&node, middle)?;
        let right = (to > middle).then(|| self.right_half(&node, &left));
        self.release(node.increment);
        if from < middle {
            self.collect(left, from, to, sum)?;
        } else {
            self.release(left.increment);
        }
        if let Some(right) = right {
            self.collect(right, from, to, sum)?;
        }
        Ok(())
    }

    /// The first half of a node: a Brownian bridge (Kidger et al., section 4).
    fn left_half(&mut self, node: &Node, middle: f64) -> Result<Node, BrownianError> {
        let Address { key, depth } = node.address;
        if depth >= u128::BITS - 1 {
            return Err(BrownianError::TooDeep(self.root.from, self.root.to));
        }
        let address = Address { key: 2 * key, depth: depth + 1 };
        let increment = if let Some(increment) = self.remembered(address) {
            increment
        } else {
            let (a, b) = (middle - node.from, node.to - middle);
            let inverse = 1.0 / (node.to - node.from);
            let deviation = (a * b * inverse).sqrt() as f32;
            let (a, inverse) = (a as f32, inverse as f32);
            let mut increment = self.buffer();
            let values = Rc::make_mut(&mut increment);
            let seed = self.sequence.spawn(&[key, u128::from(depth)]).first_word();
            self.generator.reseed(seed.into());
            self.generator.fill_normal(values);
            for (x, w) in values.iter_mut().zip(node.increment.iter()) {
                *x = a * w * inverse + deviation * *x;
            }
            self.remember(address, &increment);
            increment
        };
        Ok(Node { address, from: node.from, to: middle, increment })
    }

    /// What the first half leaves of a node.
    fn right_half(&mut self, node: &Node, left: &Node) -> Node {
        let address = Address { key: left.address.key + 1, depth: left.address.depth };
        let mut increment = self.buffer();
        let halves = node.increment.iter().zip(left.increment.iter());
        Rc::make_mut(&mut increment).iter_mut().zip(halves).for_each(|(r, (w, l))| *r = w - l);
        Node { address, from: left.to, to: node.to, increment }
    }

    /// Memory for an increment, with whatever stood there.
    fn buffer(&mut self) -> Rc<[f32]> {
        self.spare.pop().unwrap_or_else(|| vec![0.0; self.len].into())
    }

    /// Keeps the memory of an increment that nothing else refers to.
    fn release(&mut self, increment: Rc<[f32]>) {
        if Rc::strong_count(&increment) == 1 {
            self.spare.push(increment);
        }
    }

    fn remembered(&mut self, address: Address) -> Option<Rc<[f32]>> {
        let found = self.memo.iter().position(|(a, _)| *a == address)?;
        let entry = self.memo.remove(found)?;
        let increment = entry.1.clone();
        self.memo.push_back(entry);
        Some(increment)
    }

    fn remember(&mut self, address: Address, increment: &Rc<[f32]>) {
        let room = REMEMBERED_NODES.min(REMEMBERED_BYTES / (4 * self.len.max(1)));
        if room == 0 {
            return;
        }
        while self.memo.len() >= room
            && let Some((_, forgotten)) = self.memo.pop_front()
        {
            self.release(forgotten);
        }
        self.memo.push_back((address, increment.clone()));
    }
}

/// A sum of increments that starts with the first, not with zero.
struct Sum(Option<Vec<f32>>);

impl Sum {
    fn add(&mut self, increment: &[f32]) {
        match &mut self.0 {
            None => self.0 = Some(increment.to_vec()),
            Some(sum) => sum.iter_mut().zip(increment).for_each(|(s, w)| *s += w),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_that_of_the_exact_decimal_value() {
        // 2^-7 = 0.0078125 and 3 * 2^-7 are exact ties; the others lie beside one.
        for (value, want) in [
            (0.007_812_5, 0.007_812),
            (0.023_437_5, 0.023_438),
            (0.000_000_5, 0.0),
            (1.000_000_5, 1.000_001),
            (14.614_642_143_249_512, 14.614_642),
            (3e38, 3e38),
            (0.123_456_499, 0.123_456),
            (-1.000_000_7, -1.000_001),
        ] {
            assert_eq!(round_micro(value), want, "{value}");
        }
    }

    #[test]
    fn the_path_does_not_depend_on_the_queries() -> Result<(), BrownianError> {
        let mut ordered = BrownianTree::new(0.03, 14.6, 5, 40)?;
        let early = ordered.increment(3.0, 9.5)?;
        for k in 0..100 {
            ordered.increment(0.03 + f64::from(k) * 0.1, 0.5 + f64::from(k) * 0.14)?;
        }
        assert_eq!(ordered.increment(3.0, 9.5)?, early);
        assert_eq!(BrownianTree::new(0.03, 14.6, 5, 40)?.increment(3.0, 9.5)?, early);
        Ok(())
    }

    #[test]
    fn increments_add_up() -> Result<(), BrownianError> {
        let mut tree = BrownianTree::new(0.0, 1.0, 1, 1000)?;
        let (a, b, whole) = (tree.increment(0.1, 0.4)?, tree.increment(0.4, 0.9)?, tree.increment(0.1, 0.9)?);
        assert!(a.iter().zip(&b).zip(&whole).all(|((a, b), w)| (a + b - w).abs() < 1e-5));
        let variance = whole.iter().map(|w| w * w).sum::<f32>() / 1000.0;
        assert!((variance - 0.8).abs() < 0.15, "variance {variance}");
        Ok(())
    }

    #[test]
    fn odd_times_are_errors_or_zeros() -> Result<(), BrownianError> {
        assert!(BrownianTree::new(1.0, 1.0, 0, 4).is_err());
        assert!(BrownianTree::new(f64::NAN, 1.0, 0, 4).is_err());
        assert!(BrownianTree::new(0.0, f64::INFINITY, 0, 4).is_err());
        let mut tree = BrownianTree::new(0.1, 1.0, 0, 4)?;
        assert!(tree.increment(f64::NAN, 0.5).is_err());
        assert!(tree.increment(0.5, 0.2).is_err());
        assert_eq!(tree.increment(2.0, 3.0)?, [0.0; 4]);
        assert_eq!(tree.increment(0.3, 0.300_000_1)?, [0.0; 4]);
        let mut wide = BrownianTree::new(1e-6, 3e38, 0, 2)?;
        assert!(matches!(wide.increment(0.5, 1.0), Err(BrownianError::TooDeep(..))));
        Ok(())
    }
}
