//! Certificate and key files out of anything: reading them must neither panic nor hang. The seeds are the fixtures of
//! tests/pem.rs.

#![no_main]

use std::path::Path;
use std::time::{Duration, SystemTime};

use libfuzzer_sys::fuzz_target;
use scorefront::tls::foreign;
use scorefront::tls::pair::{self, Files};

fuzz_target!(|bytes: &[u8]| {
    let files = Files { chain: Path::new("cert.pem"), key: Path::new("key.pem") };
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_735_689_600);
    foreign::recognise(bytes);
    // One file with both in it, and one split in two, which reaches what only a good half lets through.
    pair::examine(bytes, bytes, files, Some("a.example.com"), now);
    let (chain, key) = bytes.split_at(bytes.len() / 2);
    pair::examine(chain, key, files, Some("*.example.com"), now);
    pair::examine_chain(bytes, files.chain, None, now);
});
