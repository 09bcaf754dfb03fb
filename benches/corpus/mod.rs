//! Files like those of environments, made from a seed: the same on every machine.

use std::path::Path;

/// About `len` bytes of text that compresses fourfold, like Python sources.
pub(crate) fn source(len: usize, seed: u64) -> Vec<u8> {
    const WORDS: [&str; 16] = [
        "def ", "return ", "self.", "import ", "    ", "value", "index", " = ", "(", "):\n", "None", "for ", " in ",
        "array", "if ", "\n",
    ];
    let mut random = Random(seed);
    let mut text = Vec::with_capacity(len + 16);
    while text.len() < len {
        text.extend_from_slice(WORDS[random.next() as usize % WORDS.len()].as_bytes());
        if random.next().is_multiple_of(5) {
            text.extend_from_slice(format!("{:x}", random.next() & 0xffff).as_bytes());
        }
    }
    text.truncate(len);
    text
}

/// `len` bytes that compress twofold, like shared libraries.
pub(crate) fn library(len: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let mut bytes = Vec::with_capacity(len + 64);
    while bytes.len() < len {
        bytes.extend_from_slice(&random.next().to_le_bytes()[..6]);
        bytes.extend_from_slice(&[0x48, 0x8b, 0x44, 0x24, 0, 0, 0xe8]);
    }
    bytes.truncate(len);
    bytes
}

/// A distribution: 400 modules of 8 KiB and two libraries of 8 MiB, 19 MiB in all.
pub(crate) fn distribution() -> Vec<(String, Vec<u8>)> {
    let modules = (0..400).map(|i| (format!("package/sub{}/module{i}.py", i / 20), source(8 << 10, i)));
    let libraries = (0..2).map(|i| (format!("package/lib{i}.so"), library(8 << 20, i)));
    modules.chain(libraries).collect()
}

/// Writes `files` below `directory`.
pub(crate) fn write(directory: &Path, files: &[(String, Vec<u8>)]) -> std::io::Result<()> {
    for (path, bytes) in files {
        let path = directory.join(path);
        path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        std::fs::write(path, bytes)?;
    }
    Ok(())
}

/// Splitmix64.
struct Random(u64);

impl Random {
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 31)
    }
}
