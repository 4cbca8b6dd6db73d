#![no_main]

#[path = "../../shared/import/tests/behaviour/any_file.rs"]
mod any_file;
#[expect(dead_code, reason = "the tests use more of it")]
#[path = "../../shared/import/tests/behaviour/world.rs"]
mod world;

libfuzzer_sys::fuzz_target!(|data: &[u8]| any_file::is_imported_alike_however_it_comes(data));
