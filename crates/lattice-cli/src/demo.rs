//! The demo model, part of the program so that a first run needs no download.

/// Name that workflows use for it.
pub(crate) const NAME: &str = "lattice-demo-emoji.safetensors";

/// Bytes whose start is aligned for any element type, so that weights can be read in place.
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

static FILE: &Aligned<[u8]> =
    &Aligned(*include_bytes!("../../../assets/demo-model/lattice-demo-emoji.safetensors"));

/// The file.
pub(crate) fn file() -> bytes::Bytes {
    bytes::Bytes::from_static(&FILE.0)
}
