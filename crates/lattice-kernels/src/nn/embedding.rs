//! Embedding tables.

use candle_core::{Result, Tensor};

use crate::Weight;

/// Rows of a table by integer id. Weight [vocabulary, width].
#[derive(Clone, Debug)]
pub struct Embedding {
    weight: Weight,
}

impl Embedding {
    /// From the stored table.
    pub fn new(weight: Weight) -> Self {
        Self { weight }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.weight.dims()[0]
    }

    /// Width of a row.
    pub fn width(&self) -> usize {
        self.weight.dims()[1]
    }

    /// The rows of `ids`, [ids.len(), width]. Only those rows are read from the file.
    ///
    /// # Errors
    /// If an id is outside the table.
    pub fn forward(&self, ids: &[u32], device: &candle_core::Device) -> Result<Tensor> {
        let width = self.width();
        let mut out = vec![0f32; ids.len() * width];
        for (row, &id) in out.chunks_exact_mut(width.max(1)).zip(ids) {
            if id as usize >= self.rows() {
                candle_core::bail!("token id {id} is outside the table of {} rows", self.rows())
            }
            self.weight.read_f32(id as usize * width, row);
        }
        Tensor::from_vec(out, (ids.len(), width), device)
    }
}
