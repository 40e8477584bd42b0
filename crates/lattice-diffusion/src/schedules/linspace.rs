//! Equally spaced values.

/// `count` f32 values from `start` to `end` inclusive; one value is `start`. Built from both ends in single precision,
/// as the reference does: stochastic solvers read their noise at the exact levels, so the last bit counts.
pub(crate) fn linspace(start: f32, end: f32, count: usize) -> impl Iterator<Item = f32> {
    let step = if count > 1 { (end - start) / (count - 1) as f32 } else { 0.0 };
    (0..count).map(move |i| {
        if count == 1 || i < count / 2 {
            start + step * i as f32
        } else {
            end - step * (count - 1 - i) as f32
        }
    })
}
