//! The built program, from a workflow file to a picture.

mod common;
mod custom_sampling;
mod demo;
mod families;
mod serve;
