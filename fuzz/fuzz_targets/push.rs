//! See `skylark_fuzz::push`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| skylark_fuzz::push(data));
