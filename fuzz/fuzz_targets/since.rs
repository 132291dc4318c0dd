//! See `skylark_fuzz::since`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| skylark_fuzz::since(data));
