//! Equally spaced values.

/// `count` values from `start` to `end` inclusive; one value is `start`. Built from both ends, so that the last is
/// exact.
pub(super) fn linspace(start: f64, end: f64, count: usize) -> impl Iterator<Item = f64> {
    let step = if count > 1 { (end - start) / (count - 1) as f64 } else { 0.0 };
    (0..count).map(move |i| {
        if count == 1 || i < count / 2 {
            start + step * i as f64
        } else {
            end - step * (count - 1 - i) as f64
        }
    })
}
