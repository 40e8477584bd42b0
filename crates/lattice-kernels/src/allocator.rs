//! How long the memory of freed results stays with the process.

use std::ffi::c_long;
use std::time::Duration;

use libmimalloc_sys::{mi_collect, mi_option_set_default, mi_option_t};

/// `mi_option_purge_delay` of mimalloc's `mi_option_e`, in milliseconds; the crate names only some of the options.
const PURGE_DELAY: mi_option_t = 15;

/// Longer than a step of most models on a few cores. All that is free is given back when this time has passed since the first of it was freed,
/// so a shorter time would have results of long computations cleared again and again.
const KEPT: Duration = Duration::from_mins(1);

/// Lets a program whose global allocator is mimalloc keep freed memory for a minute before the system gets it back
/// (mimalloc's own default is one). The environment variable `MIMALLOC_PURGE_DELAY` has the last word.
///
/// Each operation's result is freed soon after it is made, and another one of the same size follows: within a step of
/// sampling where the layers are alike, a step later where they are not. Memory that was given back in between comes as
/// pages that the system clears first, which costs as much as writing the result.
pub fn keep_freed_memory() {
    let milliseconds = KEPT.as_millis() as c_long;
    // SAFETY: the option exists in all versions of mimalloc that the crate links, and may be set at any time.
    unsafe { mi_option_set_default(PURGE_DELAY, milliseconds) };
}

/// Gives freed memory back to the system at once, where the program's allocator is mimalloc: for the moment before results
/// of another size are made, which what was kept in pieces of the old size would only add to.
pub fn release_freed_memory() {
    // SAFETY: may be called at any time.
    unsafe { mi_collect(true) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept_freed_memory() -> Duration {
        // SAFETY: reads an option that exists.
        let milliseconds = unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        Duration::from_millis(milliseconds.max(0) as u64)
    }

    #[test]
    fn the_option_is_the_purge_delay() {
        // The default of the linked version: a changed order of its options would show here.
        if std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
            assert_eq!(kept_freed_memory(), Duration::from_secs(1));
            keep_freed_memory();
            assert_eq!(kept_freed_memory(), KEPT);
        }
    }
}
