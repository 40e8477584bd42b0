//! A parameter tensor as it is stored: possibly half precision or 8 bit, possibly still in the mapped file.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use candle_core::{Device, Result, Shape, Tensor, bail};

use crate::quant::BlockType;
use crate::simd::Simd;
use crate::widen::{widen, widen_dispatched};

/// Element type of stored bytes (the names of the safetensors format, and the block types of GGUF).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoredDType {
    /// IEEE double.
    F64,
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// Upper half of a single.
    BF16,
    /// 8-bit float, 4 exponent and 3 mantissa bits, no infinities (`e4m3fn`).
    F8E4M3,
    /// 8-bit float, 5 exponent and 2 mantissa bits.
    F8E5M2,
    /// Signed 64-bit integer.
    I64,
    /// Signed 32-bit integer.
    I32,
    /// Signed 16-bit integer.
    I16,
    /// Signed 8-bit integer.
    I8,
    /// Unsigned 64-bit integer.
    U64,
    /// Unsigned 32-bit integer.
    U32,
    /// Unsigned 16-bit integer.
    U16,
    /// Unsigned byte.
    U8,
    /// One byte, 0 or 1.
    Bool,
    /// Blocks of quantised elements with their factors. A block never spans two rows (runs along the last axis).
    Block(BlockType),
}

impl StoredDType {
    /// Bytes per element, or per block for block types (see [`StoredDType::block_len`]).
    pub const fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 | Self::U64 => 8,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::BF16 | Self::I16 | Self::U16 => 2,
            Self::F8E4M3 | Self::F8E5M2 | Self::I8 | Self::U8 | Self::Bool => 1,
            Self::Block(block) => block.bytes(),
        }
    }

    /// Elements that [`StoredDType::size`] bytes hold: 1 but for block types.
    pub const fn block_len(self) -> usize {
        match self {
            Self::Block(block) => block.len(),
            _ => 1,
        }
    }

    /// Bytes of `elements` consecutive elements; `None` if they are no whole number of blocks or overflow.
    pub fn byte_len(self, elements: usize) -> Option<usize> {
        elements
            .is_multiple_of(self.block_len())
            .then(|| (elements / self.block_len()).checked_mul(self.size()))?
    }

    /// The name in the safetensors format, or GGML's name of a block type.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F64 => "F64",
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::F8E4M3 => "F8_E4M3",
            Self::F8E5M2 => "F8_E5M2",
            Self::I64 => "I64",
            Self::I32 => "I32",
            Self::I16 => "I16",
            Self::I8 => "I8",
            Self::U64 => "U64",
            Self::U32 => "U32",
            Self::U16 => "U16",
            Self::U8 => "U8",
            Self::Bool => "BOOL",
            Self::Block(BlockType::Q4_0) => "Q4_0",
            Self::Block(BlockType::Q4_1) => "Q4_1",
            Self::Block(BlockType::Q5_0) => "Q5_0",
            Self::Block(BlockType::Q5_1) => "Q5_1",
            Self::Block(BlockType::Q8_0) => "Q8_0",
            Self::Block(BlockType::Q2K) => "Q2_K",
            Self::Block(BlockType::Q3K) => "Q3_K",
            Self::Block(BlockType::Q4K) => "Q4_K",
            Self::Block(BlockType::Q5K) => "Q5_K",
            Self::Block(BlockType::Q6K) => "Q6_K",
        }
    }

    /// Whether elements are floating point numbers (block types are).
    pub const fn is_float(self) -> bool {
        matches!(
            self,
            Self::F64 | Self::F32 | Self::F16 | Self::BF16 | Self::F8E4M3 | Self::F8E5M2 | Self::Block(_)
        )
    }
}

impl std::fmt::Display for StoredDType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A handle on one stored parameter: dtype, shape and little-endian bytes. Cloning copies nothing.
///
/// The bytes usually lie in a memory-mapped file ([`Bytes::from_owner`]) and are read by the kernels as they are;
/// patched weights own theirs. An optional scale multiplies every element (scaled fp8 files).
#[derive(Clone)]
pub struct Weight(Arc<Inner>);

struct Inner {
    dtype: StoredDType,
    shape: Shape,
    bytes: Bytes,
    scale: Option<f32>,
    /// Widened copy, only made for small vectors (biases, norm gains) that are read at every call.
    widened: OnceLock<Arc<[f32]>>,
}

impl std::fmt::Debug for Weight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Weight({:?} {:?})", self.0.dtype, self.0.shape)
    }
}

impl Weight {
    /// Wraps stored bytes (little endian, row major).
    ///
    /// # Errors
    /// If `bytes` is not exactly as long as shape and dtype ask for.
    pub fn new(
        dtype: StoredDType,
        shape: impl Into<Shape>,
        bytes: Bytes,
        scale: Option<f32>,
    ) -> Result<Self> {
        let shape = shape.into();
        let Some(elements) = shape.dims().iter().try_fold(1usize, |n, &d| n.checked_mul(d)) else {
            bail!("tensor of shape {shape:?} overflows the address space")
        };
        let row = shape.dims().last().copied().unwrap_or(1);
        let Some(wanted) = dtype.byte_len(elements).filter(|_| row.is_multiple_of(dtype.block_len())) else {
            bail!("rows of a tensor of shape {shape:?} are no whole number of {dtype} blocks")
        };
        if wanted != bytes.len() {
            bail!("tensor of shape {shape:?} and dtype {dtype} needs {wanted} bytes, got {}", bytes.len())
        }
        Ok(Self(Arc::new(Inner { dtype, shape, bytes, scale, widened: OnceLock::new() })))
    }

    /// An f32 weight that owns its values.
    pub fn from_f32(values: Vec<f32>, shape: impl Into<Shape>) -> Result<Self> {
        let bytes = Bytes::from_owner(OwnedF32(values));
        Self::new(StoredDType::F32, shape, bytes, None)
    }

    /// Shape.
    pub fn shape(&self) -> &Shape {
        &self.0.shape
    }

    /// Sizes of the axes.
    pub fn dims(&self) -> &[usize] {
        self.0.shape.dims()
    }

    /// Element type of the stored bytes.
    pub fn dtype(&self) -> StoredDType {
        self.0.dtype
    }

    /// Number of elements.
    pub fn elem_count(&self) -> usize {
        self.0.shape.elem_count()
    }

    /// The stored bytes. Not necessarily aligned for their type: a safetensors file promises nothing.
    pub fn bytes(&self) -> &Bytes {
        &self.0.bytes
    }

    /// Factor that every stored element is multiplied by, if the file has one.
    pub fn scale(&self) -> Option<f32> {
        self.0.scale
    }

    /// Identity of the stored tensor, for caches: equal for clones of one handle.
    pub fn id(&self) -> usize {
        Arc::as_ptr(&self.0) as usize
    }

    /// The same bytes seen with another shape of as many elements.
    pub fn reshape(&self, shape: impl Into<Shape>) -> Result<Self> {
        Self::new(self.0.dtype, shape, self.0.bytes.clone(), self.0.scale)
    }

    /// Rows `start..start+len` of the first axis, without copying.
    pub fn narrow_rows(&self, start: usize, len: usize) -> Result<Self> {
        let dims = self.dims();
        let Some((&rows, rest)) = dims.split_first() else { bail!("narrow_rows on a scalar") };
        if start.checked_add(len).is_none_or(|end| end > rows) {
            bail!("rows {start}..{start}+{len} of a tensor with {rows} rows")
        }
        let Some(row) = self.0.dtype.byte_len(rest.iter().product()) else {
            bail!("rows of {dims:?} are no whole number of {} blocks", self.0.dtype)
        };
        let mut shape = dims.to_vec();
        shape[0] = len;
        Self::new(self.0.dtype, shape, self.0.bytes.slice(start * row..(start + len) * row), self.0.scale)
    }

    /// Writes elements `start..start+out.len()` as f32 (scale applied).
    pub fn read_f32(&self, start: usize, out: &mut [f32]) {
        match self.0.dtype {
            StoredDType::Block(block) => block.widen_range(&self.0.bytes, start, out),
            dtype => widen_dispatched(dtype, self.stored(start, out.len()), out),
        }
        self.rescale(out);
    }

    /// [`Self::read_f32`] for use inside kernels, whose instruction set it is compiled for.
    #[inline(always)]
    pub(crate) fn read_f32_inline<S: Simd>(&self, s: S, start: usize, out: &mut [f32]) {
        match self.0.dtype {
            StoredDType::Block(block) => block.widen_range(&self.0.bytes, start, out),
            dtype => widen(s, dtype, self.stored(start, out.len()), out),
        }
        self.rescale(out);
    }

    /// The elements where they lie, if they are f32 as they stand: aligned and without a scale.
    pub(crate) fn as_f32(&self) -> Option<&[f32]> {
        let plain =
            cfg!(target_endian = "little") && self.0.dtype == StoredDType::F32 && self.0.scale.is_none();
        if plain { bytemuck::try_cast_slice(&self.0.bytes).ok() } else { None }
    }

    /// Bytes of elements `start..start + len` of a type that is not a block type.
    #[inline(always)]
    fn stored(&self, start: usize, len: usize) -> &[u8] {
        let size = self.0.dtype.size();
        &self.0.bytes[start * size..(start + len) * size]
    }

    #[inline(always)]
    fn rescale(&self, out: &mut [f32]) {
        if let Some(scale) = self.0.scale {
            for v in out {
                *v *= scale;
            }
        }
    }

    /// All elements as f32 (scale applied), a fresh copy.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.elem_count()];
        self.read_f32(0, &mut out);
        out
    }

    /// All elements as f32, widened once and kept. Meant for vectors (biases, norm gains), not matrices.
    pub fn f32_cached(&self) -> Arc<[f32]> {
        self.0.widened.get_or_init(|| self.to_f32().into()).clone()
    }

    /// All elements as an f32 tensor.
    pub fn to_tensor(&self, device: &Device) -> Result<Tensor> {
        Tensor::from_vec(self.to_f32(), self.0.shape.clone(), device)
    }
}

struct OwnedF32(Vec<f32>);

impl AsRef<[u8]> for OwnedF32 {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}
