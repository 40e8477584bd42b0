//! The node library: one module per category, one function per node, thin over the crates below.
//!
//! A node is a plain documented function under [`macro@node::node`]; its inputs and results are the [`types`], and what
//! it needs of its surroundings (folders, models) are [`services`] of the call's context.

// The code that #[node] generates names this crate as its users do.
extern crate self as lattice_nodes;

mod error;
pub mod node;
mod nodes;
pub mod services;
mod tensors;
pub mod types;

pub use error::{Error, Result};
pub use nodes::{Coverage, coverage, registry};
