//! Runs reference cases (`testdata/goldens`, or any folder of the same format) against the library.
//!
//! A folder holds sets: a JSON index and a safetensors file of the same name, in sub-folders by topic. Each case names
//! an operation (`op`, or `kind` within its topic); [`ops::table`] maps operations to functions. Adding one is one entry there.

pub mod analytic;
pub mod case;
pub mod ops;
pub mod run;
pub mod synthetic;

pub use case::{Case, Check, Outcome, Set};
pub use run::{Report, run_folder};
