//! What stands around a model: calls that are left out, windows over long latents.

use std::sync::Arc;

use lattice_diffusion::guidance::Range;
use lattice_diffusion::model::{Fuse, Reuse, WindowSchedule, Windows};
use lattice_graph::Node;

use crate::node::{Choice, node};
use crate::types::Model;

/// The nodes of this module.
pub(super) fn nodes() -> Vec<Arc<dyn Node>> {
    crate::nodes![easy_cache, lazy_cache, context_windows_manual, wan_context_windows_manual]
}

/// Leaves out calls of the network whose result can be told from earlier ones (EasyCache). Faster, and not the same picture.
#[node(
    name = "EasyCache",
    title = "EasyCache",
    category = "advanced/debug/model",
    module = "comfy_extras.nodes_easycache",
    v3,
    experimental
)]
fn easy_cache(
    /// The model to add EasyCache to.
    #[widget]
    model: Model,
    /// Estimated change of the output, summed up, below which the network is not called.
    #[widget(default = 0.2, min = 0.0, max = 3.0, step = 0.01)]
    reuse_threshold: f64,
    /// Where in the sampling calls begin to be left out.
    #[widget(default = 0.15, min = 0.0, max = 1.0, step = 0.01)]
    start_percent: f64,
    /// Where that ends.
    #[widget(default = 0.95, min = 0.0, max = 1.0, step = 0.01)]
    end_percent: f64,
    /// Whether to log what is left out.
    #[widget(default = false)]
    verbose: bool,
) -> Model {
    let range = Range { start: start_percent, end: end_percent };
    let reuse = Reuse { threshold: reuse_threshold, range, verbose };
    model.with_patches(|patches| patches.wrappers.push(Arc::new(reuse)))
}

/// Leaves out whole guided predictions that can be told from earlier ones. Faster, and not the same picture.
#[node(
    name = "LazyCache",
    title = "LazyCache",
    category = "advanced/debug/model",
    module = "comfy_extras.nodes_easycache",
    v3,
    experimental
)]
fn lazy_cache(
    /// The model to add LazyCache to.
    #[widget]
    model: Model,
    /// Estimated change of the prediction, summed up, below which nothing is evaluated.
    #[widget(default = 0.2, min = 0.0, max = 3.0, step = 0.01)]
    reuse_threshold: f64,
    /// Where in the sampling predictions begin to be left out.
    #[widget(default = 0.15, min = 0.0, max = 1.0, step = 0.01)]
    start_percent: f64,
    /// Where that ends.
    #[widget(default = 0.95, min = 0.0, max = 1.0, step = 0.01)]
    end_percent: f64,
    /// Whether to log what is left out.
    #[widget(default = false)]
    verbose: bool,
) -> Model {
    let range = Range { start: start_percent, end: end_percent };
    let reuse = Reuse { threshold: reuse_threshold, range, verbose };
    model.with_patches(|patches| patches.reuse = Some(reuse))
}

/// Which windows there are.
#[derive(Clone, Copy, Choice)]
enum ScheduleChoice {
    #[choice("standard_static")]
    StandardStatic,
    #[choice("standard_uniform")]
    StandardUniform,
    #[choice("looped_uniform")]
    LoopedUniform,
    #[choice("batched")]
    Batched,
}

impl From<ScheduleChoice> for WindowSchedule {
    fn from(choice: ScheduleChoice) -> Self {
        match choice {
            ScheduleChoice::StandardStatic => Self::StandardStatic,
            ScheduleChoice::StandardUniform => Self::StandardUniform,
            ScheduleChoice::LoopedUniform => Self::LoopedUniform,
            ScheduleChoice::Batched => Self::Batched,
        }
    }
}

/// How windows are mixed.
#[derive(Clone, Copy, Choice)]
enum FuseChoice {
    #[choice("pyramid")]
    Pyramid,
    #[choice("relative")]
    Relative,
    #[choice("flat")]
    Flat,
    #[choice("overlap-linear")]
    OverlapLinear,
}

impl From<FuseChoice> for Fuse {
    fn from(choice: FuseChoice) -> Self {
        match choice {
            FuseChoice::Pyramid => Self::Pyramid,
            FuseChoice::Relative => Self::Relative,
            FuseChoice::Flat => Self::Flat,
            FuseChoice::OverlapLinear => Self::OverlapLinear,
        }
    }
}

/// Evaluates a model on windows of the latent that overlap, and mixes them.
#[node(
    name = "ContextWindowsManual",
    title = "Context Windows (Manual)",
    category = "context",
    module = "comfy_extras.nodes_context_windows",
    v3,
    experimental
)]
#[expect(clippy::too_many_arguments, reason = "the node has these inputs")]
fn context_windows_manual(
    /// The model to evaluate in windows.
    #[widget]
    model: Model,
    /// Places of a window.
    #[widget(default = 16, min = 1)]
    context_length: usize,
    /// Places that neighbours share.
    #[widget(default = 4, min = 0)]
    context_overlap: usize,
    #[combo("standard_static", "standard_uniform", "looped_uniform", "batched")]
    context_schedule: ScheduleChoice,
    /// How many strides the uniform schedules use.
    #[widget(default = 1, min = 1)]
    context_stride: usize,
    /// Whether the last window of a looped schedule shares places with the first.
    #[widget(default = false)]
    closed_loop: bool,
    #[combo("pyramid", "relative", "flat", "overlap-linear")]
    #[widget(default = "pyramid")]
    fuse_method: FuseChoice,
    /// The axis: 0 the batch, 2 the frames of a video.
    #[widget(default = 0, min = 0, max = 5)]
    dim: usize,
) -> Model {
    let windows = Windows {
        length: context_length,
        overlap: context_overlap,
        schedule: context_schedule.into(),
        stride: context_stride,
        closed_loop,
        fuse: fuse_method.into(),
        axis: dim,
    };
    model.with_patches(|patches| patches.wrappers.push(Arc::new(windows)))
}

/// Evaluates a Wan model on windows of its frames, and mixes them. Lengths are in frames of the video, of which four make one of the
/// latent.
#[node(
    name = "WanContextWindowsManual",
    title = "WAN Context Windows (Manual)",
    category = "context",
    module = "comfy_extras.nodes_context_windows",
    v3,
    experimental
)]
fn wan_context_windows_manual(
    /// The model to evaluate in windows.
    #[widget]
    model: Model,
    /// Frames of a window.
    #[widget(default = 81, min = 1, max = 16384, step = 4)]
    context_length: usize,
    /// Frames that neighbours share.
    #[widget(default = 30, min = 0)]
    context_overlap: usize,
    #[combo("standard_static", "standard_uniform", "looped_uniform", "batched")]
    context_schedule: ScheduleChoice,
    /// How many strides the uniform schedules use.
    #[widget(default = 1, min = 1)]
    context_stride: usize,
    /// Whether the last window of a looped schedule shares frames with the first.
    #[widget(default = false)]
    closed_loop: bool,
    #[combo("pyramid", "relative", "flat", "overlap-linear")]
    #[widget(default = "pyramid")]
    fuse_method: FuseChoice,
) -> Model {
    // Of n frames the first makes one of the latent, and every four after it another.
    let length = context_length.saturating_sub(1) / 4 + 1;
    let overlap = context_overlap.checked_sub(1).map_or(0, |n| n / 4 + 1);
    let windows = Windows {
        length,
        overlap,
        schedule: context_schedule.into(),
        stride: context_stride,
        closed_loop,
        fuse: fuse_method.into(),
        axis: 2,
    };
    model.with_patches(|patches| patches.wrappers.push(Arc::new(windows)))
}
