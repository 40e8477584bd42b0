//! The `#[node]` attribute.
