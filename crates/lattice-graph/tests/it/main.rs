//! Tests of the engine through its public face.

mod cache;
mod execution;
mod expansion;
mod nodes;
mod properties;
mod transcripts;
mod validation;
mod workflow;
