//! Reading a file that may hold a private key.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use anyhow::{Context, bail};
use zeroize::Zeroizing;

/// Files with a chain and a key are a few kilobytes; what is larger is none.
const MAX_FILE: u64 = 1024 * 1024;

/// A file's bytes, wiped when they are dropped.
pub(in crate::cli) fn read(file: &Path) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let name = file.display();
    if file.is_dir() {
        bail!("{name}: is a directory; name the file in it");
    }
    let opened = File::open(file).map_err(|error| match error.kind() {
        ErrorKind::NotFound => anyhow::anyhow!("{name}: there is no such file"),
        _ => anyhow::anyhow!("{name}: {error}"),
    })?;
    // Room for all of it at once: growing would leave copies behind.
    let length = opened.metadata().map_or(0, |metadata| metadata.len()).min(MAX_FILE);
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 1));
    opened.take(MAX_FILE + 1).read_to_end(&mut bytes).with_context(|| name.to_string())?;
    if bytes.len() as u64 > MAX_FILE {
        bail!("{name}: is larger than any certificate or key");
    }
    Ok(bytes)
}
