//! Choosing a palette by median cut (P. Heckbert, "Color image quantization for frame buffer display", 1982), with the
//! order of cuts and the ties of the Pillow library, so that the palettes are equal.

use std::collections::HashMap;

use candle_core::{Result, bail};

/// Most different colours that are told apart; with more, the lower bits are dropped until they suffice.
const MAX_COLORS: usize = 65_536;

/// Weights of red, green and blue when a box's longest side is sought.
const LUMINANCE: [u32; 3] = [77, 150, 29];

/// Colours (scaled) and how many pixels have each.
type Histogram = Vec<([u8; 3], u64)>;

/// A set of colours, cut in two or not.
struct Node {
    colors: Histogram,
    pixels: u64,
    halves: Option<(usize, usize)>,
}

/// At most `colors` colours for RGB pixels.
///
/// # Errors
/// If no colour is allowed or there are no pixels.
pub(crate) fn palette(rgb: &[u8], colors: usize) -> Result<Vec<[u8; 3]>> {
    let pixels = rgb.as_chunks::<3>().0;
    if colors == 0 || pixels.is_empty() {
        bail!("a palette of {colors} colours cannot be made for {} pixels", pixels.len())
    }
    let (histogram, scale) = histogram(pixels);
    let mut nodes = vec![Node { colors: histogram, pixels: pixels.len() as u64, halves: None }];
    let mut heap = Heap::default();
    heap.add(0, &nodes);
    'cuts: for _ in 1..colors {
        let next = loop {
            match heap.remove(&nodes) {
                None => break 'cuts,
                Some(node) if volume(&nodes[node].colors) == 1 => {}
                Some(node) => break node,
            }
        };
        let (left, right) = cut(&std::mem::take(&mut nodes[next].colors), nodes[next].pixels);
        for half in [left, right] {
            let pixels = half.iter().map(|(_, n)| n).sum();
            nodes.push(Node { colors: half, pixels, halves: None });
        }
        let (left, right) = (nodes.len() - 2, nodes.len() - 1);
        nodes[next].halves = Some((left, right));
        heap.add(left, &nodes);
        heap.add(right, &nodes);
    }
    Ok(averages(pixels, scale, &nodes))
}

/// Colours with their counts, and the number of low bits dropped to keep their number below [`MAX_COLORS`].
fn histogram(pixels: &[[u8; 3]]) -> (Histogram, u32) {
    let mut scale = 0;
    let mut counts: HashMap<[u8; 3], u64> = HashMap::new();
    for pixel in pixels {
        *counts.entry(pixel.map(|v| v >> scale)).or_default() += 1;
        while counts.len() > MAX_COLORS {
            scale += 1;
            let mut coarser = HashMap::new();
            for (color, count) in counts {
                *coarser.entry(color.map(|v| v >> 1)).or_default() += count;
            }
            counts = coarser;
        }
    }
    let mut histogram: Histogram = counts.into_iter().collect();
    histogram.sort_unstable();
    (histogram, scale)
}

/// Lowest and highest value along an axis.
fn extent(colors: &Histogram, axis: usize) -> (u8, u8) {
    let values = || colors.iter().map(|(c, _)| c[axis]);
    (values().min().unwrap_or(0), values().max().unwrap_or(0))
}

fn volume(colors: &Histogram) -> u64 {
    let side = |axis| {
        let (low, high) = extent(colors, axis);
        u64::from(high - low) + 1
    };
    side(0) * side(1) * side(2)
}

/// Halves a box across its longest side: the upper half takes whole values, from the highest down, until it holds more
/// than half of the pixels; the lower half is never empty.
fn cut(colors: &Histogram, pixels: u64) -> (Histogram, Histogram) {
    let length = |axis: usize| {
        let (low, high) = extent(colors, axis);
        u32::from(high - low) * LUMINANCE[axis]
    };
    // The first of equally long ones.
    let axis = (1..3).fold(0, |best, axis| if length(axis) > length(best) { axis } else { best });
    let mut by_value = [0u64; 256];
    for (color, count) in colors {
        by_value[usize::from(color[axis])] += count;
    }
    let (low, high) = extent(colors, axis);
    let mut taken = 0;
    let threshold = (low..=high).rev().find(|&v| {
        taken += by_value[usize::from(v)];
        taken * 2 > pixels
    });
    let threshold = match threshold {
        Some(v) if v > low => v,
        _ => low.saturating_add(1),
    };
    colors.iter().partition(|(color, _)| color[axis] >= threshold)
}

/// Mean colour of the pixels of every box, upper halves first.
fn averages(pixels: &[[u8; 3]], scale: u32, nodes: &[Node]) -> Vec<[u8; 3]> {
    let mut box_of: HashMap<[u8; 3], usize> = HashMap::new();
    let (mut open, mut boxes) = (vec![0], 0);
    while let Some(node) = open.pop() {
        if let Some((left, right)) = nodes[node].halves {
            open.extend([right, left]);
        } else {
            box_of.extend(nodes[node].colors.iter().map(|(color, _)| (*color, boxes)));
            boxes += 1;
        }
    }
    let mut sums = vec![([0u64; 3], 0u64); boxes];
    for pixel in pixels {
        if let Some(&at) = box_of.get(&pixel.map(|v| v >> scale)) {
            let (sum, count) = &mut sums[at];
            *count += 1;
            sum.iter_mut().zip(pixel).for_each(|(s, &v)| *s += u64::from(v));
        }
    }
    let rounded = |sum: u64, count: u64| (0.5 + sum as f64 / count as f64) as u8;
    sums.into_iter().map(|(sum, count)| sum.map(|s| rounded(s, count))).collect()
}

/// Binary heap of nodes by pixels, greatest first. The order of equal ones decides which box is cut, so it is Pillow's.
#[derive(Default)]
struct Heap(Vec<usize>);

impl Heap {
    fn add(&mut self, node: usize, nodes: &[Node]) {
        let weight = |n: usize| nodes[n].pixels;
        let mut k = self.0.len();
        self.0.push(node);
        while k > 0 && weight(node) > weight(self.0[(k - 1) / 2]) {
            self.0[k] = self.0[(k - 1) / 2];
            k = (k - 1) / 2;
        }
        self.0[k] = node;
    }

    fn remove(&mut self, nodes: &[Node]) -> Option<usize> {
        let weight = |n: usize| nodes[n].pixels;
        let last = self.0.pop()?;
        let Some(&top) = self.0.first() else { return Some(last) };
        let mut k = 0;
        while 2 * k + 1 < self.0.len() {
            let mut child = 2 * k + 1;
            if child + 1 < self.0.len() && weight(self.0[child]) < weight(self.0[child + 1]) {
                child += 1;
            }
            if weight(last) > weight(self.0[child]) {
                break;
            }
            self.0[k] = self.0[child];
            k = child;
        }
        self.0[k] = last;
        Some(top)
    }
}
