//! Devices, threads and memory budgets.

use candle_core::Device;

/// The device that activations live on.
pub fn default_device() -> Device {
    Device::Cpu
}

/// Sets how many threads compute, once, before anything is computed; later calls change nothing.
pub fn set_threads(count: usize) {
    // The only failure is that the pool exists already.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(count).build_global();
}

/// Memory that the process holds now, in bytes (0 where the system does not tell). Pages of mapped files that are in
/// memory count.
pub fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_ascii_whitespace().nth(1)?.parse::<u64>().ok());
    // SAFETY: sysconf only reads a constant of the system.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    pages.unwrap_or(0) * u64::try_from(page).unwrap_or(0)
}

/// Memory of the machine and what of it can still be taken, in bytes (0 where the system does not tell).
pub fn system_memory() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kibibytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().next()?.parse::<u64>().ok()
    };
    let bytes = |name: &str| kibibytes(name).unwrap_or(0) * 1024;
    (bytes("MemTotal:"), bytes("MemAvailable:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_machine_has_memory() {
        let (total, free) = system_memory();
        assert!(free > 0 && free < total);
        assert!(total > resident_bytes());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn resident_memory_grows_with_what_is_touched() {
        let before = resident_bytes();
        let block = vec![1u8; 64 << 20];
        assert!(resident_bytes() >= before + (48 << 20));
        assert_eq!(block[block.len() - 1], 1);
    }
}
