#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| lattice_fuzz::run("client_message", data));
