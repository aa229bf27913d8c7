#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sentence_burn_fuzz::card(data));
