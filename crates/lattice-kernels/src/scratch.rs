//! Buffers: per-thread scratch that is reused, and results that are not zeroed before they are written.

use std::cell::Cell;

use bytemuck::{Pod, Zeroable};

/// One cache line; packed panels start on one so that no vector load straddles two.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([f32; 16]);

thread_local! {
    static SCRATCH: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// This thread's scratch, lent until dropped. What it holds at first is arbitrary: left over from other calls.
///
/// The buffer stays with the thread, so a kernel's page faults are paid once and not at every call. If the thread asks
/// again while it is lent (work stealing inside a kernel), the second one gets a buffer of its own.
///
/// A guard and not a function with a closure: the body of a closure is compiled without the instruction set of the
/// kernel around it.
pub(crate) struct Scratch {
    lines: Vec<Line>,
    len: usize,
}

impl Scratch {
    /// At least `len` elements.
    pub(crate) fn take(len: usize) -> Self {
        let mut lines = SCRATCH.take();
        let wanted = len.div_ceil(16);
        if lines.len() < wanted {
            // Growing would copy what nobody reads.
            drop(lines);
            lines = vec![Line::zeroed(); wanted];
        }
        Self { lines, len }
    }
}

impl std::ops::Deref for Scratch {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl std::ops::DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        SCRATCH.set(std::mem::take(&mut self.lines));
    }
}

/// Rounds a length up to whole cache lines, to lay several aligned parts out in one scratch buffer.
pub(crate) fn aligned(len: usize) -> usize {
    len.next_multiple_of(16)
}

/// A pointer that several threads write through, each to its own elements.
#[derive(Clone, Copy)]
pub(crate) struct SharedMut {
    ptr: *mut f32,
    len: usize,
}

// SAFETY: the type only carries the pointer; every use is an `unsafe` call whose caller promises disjoint elements.
unsafe impl Send for SharedMut {}
// SAFETY: as above.
unsafe impl Sync for SharedMut {}

impl SharedMut {
    /// Shares `data` for as long as the caller keeps it borrowed.
    pub(crate) fn new(data: &mut [f32]) -> Self {
        Self { ptr: data.as_mut_ptr(), len: data.len() }
    }

    /// The buffer from element `start` on.
    ///
    /// # Panics
    /// If it lies outside the buffer.
    pub(crate) fn skip(self, start: usize) -> Self {
        Self { ptr: self.at(start), len: self.len - start }
    }

    /// Pointer to element `index`.
    ///
    /// # Panics
    /// If it lies outside the buffer.
    pub(crate) fn at(self, index: usize) -> *mut f32 {
        assert!(index <= self.len);
        // SAFETY: within the allocation, just checked.
        unsafe { self.ptr.add(index) }
    }

    /// Elements `start..start + len` as a slice.
    ///
    /// # Safety
    /// Nobody else touches these elements while the slice lives, and the buffer outlives it.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn slice<'a>(self, start: usize, len: usize) -> &'a mut [f32] {
        assert!(start <= self.len && len <= self.len - start);
        // SAFETY: inside the buffer by the check; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(start), len) }
    }
}

/// A vector of `len` elements made by `fill`, which must write all of them (test builds poison it with NaN first).
///
/// Zeroing a 100 MB result costs as much as some of the kernels that would then overwrite it.
///
/// # Safety
/// `fill` writes every element before reading any.
pub(crate) unsafe fn uninit_vec(len: usize, fill: impl FnOnce(&mut [f32])) -> Vec<f32> {
    let mut v: Vec<f32> = Vec::with_capacity(len);
    if cfg!(test) {
        v.resize(len, f32::NAN);
    } else {
        // SAFETY: capacity was just reserved; the caller promises that `fill` writes every element before it is read.
        #[allow(clippy::uninit_vec)]
        unsafe {
            v.set_len(len);
        }
    }
    fill(&mut v);
    v
}
