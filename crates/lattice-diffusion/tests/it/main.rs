//! Properties of schedules, samplers and the frame around them.

mod documentation;
mod gaussian;
mod samplers;
mod schedules;
