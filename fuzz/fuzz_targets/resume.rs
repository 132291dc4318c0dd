//! See `skylark_fuzz::resume`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| skylark_fuzz::resume(data));
