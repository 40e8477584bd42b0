//! A checked reader over little-endian bytes.

use bytes::Bytes;

use crate::error::Cause;

/// Position in a run of bytes; every step past the end is an error that says what was being read.
pub(crate) struct Cursor<'a> {
    bytes: &'a Bytes,
    position: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a Bytes, position: usize) -> Self {
        Self { bytes, position }
    }

    pub(crate) fn position(&self) -> usize {
        self.position
    }

    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len().saturating_sub(self.position)
    }

    pub(crate) fn take(&mut self, count: u64, what: &'static str) -> Result<&'a [u8], Cause> {
        let needed = (self.position as u64).saturating_add(count);
        let present = self.bytes.len() as u64;
        if needed > present {
            return Err(Cause::Truncated { what, needed, present });
        }
        let out = &self.bytes[self.position..needed as usize];
        self.position = needed as usize;
        Ok(out)
    }

    pub(crate) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Cause> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64, what)?);
        Ok(out)
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, Cause> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, what: &'static str) -> Result<u64, Cause> {
        self.array(what).map(u64::from_le_bytes)
    }
}
