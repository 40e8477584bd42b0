//! The readers of data from outside as functions of bytes. `fuzz/` feeds them what a fuzzer makes up, this crate's tests the seeds and
//! simple changes of them. A reader passes when it returns, whatever it says: panics, hangs and unbounded memory are the failures.

mod files;
mod prompts;

/// A reader.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Name of the fuzz target and of its folder of seeds.
    pub name: &'static str,
    /// Reads one input.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 11] = [
    Target { name: "safetensors", run: files::safetensors },
    Target { name: "pickle", run: files::pickle },
    Target { name: "gguf", run: files::gguf },
    Target { name: "diffusers_index", run: files::diffusers_index },
    Target { name: "adapter", run: files::adapter },
    Target { name: "picture_metadata", run: files::picture_metadata },
    Target { name: "picture", run: files::picture },
    Target { name: "prompt", run: prompts::prompt },
    Target { name: "workflow", run: prompts::workflow },
    Target { name: "prompt_text", run: prompts::prompt_text },
    Target { name: "client_message", run: prompts::client_message },
];

/// Runs one target, for the fuzzer's binaries.
///
/// # Panics
/// If there is no target of that name, or it fails.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.unwrap_or_else(|| panic!("no target {name}")).run)(data);
}
