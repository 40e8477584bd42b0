//! The built program, from a workflow file to a picture.

mod common;
mod demo;
mod families;
mod serve;
