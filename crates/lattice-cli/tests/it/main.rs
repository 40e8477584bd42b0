//! The built program, from a workflow file to a picture.

mod broken;
mod common;
mod control;
mod convert;
mod custom_sampling;
mod demo;
mod families;
mod hooks;
mod image_files;
mod loaders;
mod patches;
mod previews;
mod saving;
mod serve;
mod unet_additions;
mod vision;
