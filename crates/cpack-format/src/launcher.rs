//! A launcher: the boot executable with a job appended, an ELF file that is also a zip.
//!
//! ```text
//! cpack-boot | zip of stored entries: cpack-job.json, manifest.json       | comment: "cpack1:" start ":" digest
//! script     | zip of stored entries: cpack-job.json, manifest.json, boot | comment, the same
//! ```
//!
//! A store keeps launchers without their executable, which is the same for all of them. A script that starts the executable
//! replaces it, and `boot` holds its digest.
//!
//! The comment holds, in hexadecimal, the offset of the appended zip (16 digits) and the BLAKE3 of everything from there
//! up to the comment (64 digits), so that a launcher finds its job with two reads and refuses a damaged one.
//! Offsets count from the start of the file: `unzip -l` shows the files of a launcher.

use std::io;

use crate::Digest;
use crate::zip::{self, Entry, Method, ZipError};

const COMMENT_PREFIX: &[u8] = b"cpack1:";

/// In a boot executable the names of the stores that it can open follow this mark, separated by spaces and ended by a line
/// feed. The packer, which may not be able to run the executable, reads them.
pub const STORES_MARK: &str = "cpack-boot opens:";

/// The file in a launcher of a store that holds the digest of its executable, in hexadecimal.
pub const BOOT_NAME: &str = "boot";

/// Length of a launcher's trailer, its last bytes.
pub const TRAILER_SIZE: usize = COMMENT_PREFIX.len() + 16 + 1 + 64;

/// Most bytes of the appended part: a job and a manifest.
const MAX_APPENDED: u64 = 2 * crate::manifest::MAX_JSON;

/// Why the job of a launcher was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what each variant means")]
pub enum LauncherError {
    #[error(
        "the job appended to this launcher is damaged (digest {found}, expected {expected}): copy the launcher again"
    )]
    Damaged { found: Digest, expected: Digest },
    #[error("the trailer of this launcher is damaged: copy the launcher again")]
    Trailer,
    #[error("the job appended to this launcher cannot be read: {0}")]
    Zip(#[from] ZipError),
}

/// Whether a file of `size` bytes ends as launchers do. `read` fills a buffer from an offset; a file that it cannot read does
/// not.
pub fn is_launcher(size: u64, read: impl FnOnce(&mut [u8], u64) -> io::Result<()>) -> bool {
    let mut start = [0; COMMENT_PREFIX.len()];
    let at = size.checked_sub(TRAILER_SIZE as u64);
    at.is_some_and(|at| read(&mut start, at).is_ok()) && start == *COMMENT_PREFIX
}

/// The last bytes of a launcher, which say where its appended part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// Offset of the appended part in the file.
    pub start: u64,
    /// Its length, without the trailer.
    pub size: u64,
    digest: Digest,
}

impl Trailer {
    /// Reads the last [`TRAILER_SIZE`] bytes of a file of `file_size` bytes. `None` if the file is no launcher.
    ///
    /// A wrong trailer that starts as one is an error, so that a damaged launcher never passes for a plain executable.
    pub fn read(tail: &[u8], file_size: u64) -> Result<Option<Self>, LauncherError> {
        let Some(text) = tail.strip_prefix(COMMENT_PREFIX) else { return Ok(None) };
        let (start, digest) = std::str::from_utf8(text)
            .ok()
            .and_then(|text| text.split_once(':'))
            .and_then(|(start, digest)| Some((u64::from_str_radix(start, 16).ok()?, digest.parse().ok()?)))
            .ok_or(LauncherError::Trailer)?;
        let size = file_size
            .checked_sub(TRAILER_SIZE as u64)
            .and_then(|end| end.checked_sub(start))
            .filter(|size| *size <= MAX_APPENDED)
            .ok_or(LauncherError::Trailer)?;
        Ok(Some(Self { start, size, digest }))
    }

    /// Verifies and opens the appended part: the bytes of the file at `start..start + size`.
    pub fn open(self, appended: &[u8]) -> Result<Appended<'_>, LauncherError> {
        let found = Digest::of(appended);
        if found != self.digest {
            return Err(LauncherError::Damaged { found, expected: self.digest });
        }
        // The end record expects a comment that is not part of `appended`. Any bytes of its length will do.
        let with_comment = [appended, &[b' '; TRAILER_SIZE]].concat();
        let end = zip::read_end(&with_comment, self.start + with_comment.len() as u64)?;
        let offset = end.directory_offset.checked_sub(self.start).ok_or(LauncherError::Trailer)?;
        let directory = slice(appended, offset, end.directory_size).ok_or(LauncherError::Trailer)?;
        let entries = zip::read_directory(directory, &end)?;
        Ok(Appended { start: self.start, bytes: appended, entries })
    }
}

/// The files appended to a launcher, verified.
#[derive(Debug)]
pub struct Appended<'a> {
    start: u64,
    bytes: &'a [u8],
    entries: Vec<Entry>,
}

impl<'a> Appended<'a> {
    /// Verifies and opens what is appended to `file`. `None` if the file is no launcher.
    pub fn of(file: &'a [u8]) -> Result<Option<Self>, LauncherError> {
        let (before, tail) = file.split_at(file.len().saturating_sub(TRAILER_SIZE));
        let Some(trailer) = Trailer::read(tail, file.len() as u64)? else { return Ok(None) };
        let appended = slice(before, trailer.start, u64::MAX).ok_or(LauncherError::Trailer)?;
        trailer.open(appended).map(Some)
    }

    /// Offset of the appended part in the file.
    pub const fn start(&self) -> u64 {
        self.start
    }

    /// The content of the file `name`.
    pub fn file(&self, name: &str) -> Option<&'a [u8]> {
        let entry = self.entries.iter().find(|e| *e.name == *name.as_bytes() && e.method == Method::Store)?;
        let offset = entry.header_offset.checked_sub(self.start)?;
        let header = zip::local_header_len(slice(self.bytes, offset, u64::MAX)?, entry).ok()?;
        slice(self.bytes, offset + header as u64, entry.size)
    }
}

/// `bytes[offset..offset + len]`, `len` cut to what there is if it is `u64::MAX`.
fn slice(bytes: &[u8], offset: u64, len: u64) -> Option<&[u8]> {
    let rest = bytes.get(usize::try_from(offset).ok()?..)?;
    if len == u64::MAX { Some(rest) } else { rest.get(..usize::try_from(len).ok()?) }
}

/// The bytes that make an executable of `start` bytes a launcher with `files` (name, content).
pub fn appendix(start: u64, files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut directory = Vec::new();
    for (name, bytes) in files {
        let entry = Entry {
            name: name.as_bytes().into(),
            method: Method::Store,
            crc32: crc32fast::hash(bytes),
            compressed_size: bytes.len() as u64,
            size: bytes.len() as u64,
            header_offset: start + out.len() as u64,
            mode: 0o100_600,
            frames: None,
        };
        out.extend_from_slice(&zip::local_header(&entry));
        out.extend_from_slice(bytes);
        directory.extend_from_slice(&zip::central_record(&entry));
    }
    let offset = start + out.len() as u64;
    out.extend_from_slice(&directory);
    let end = zip::end_records(files.len() as u64, directory.len() as u64, offset, &[b' '; TRAILER_SIZE]);
    out.extend_from_slice(end.get(..end.len() - TRAILER_SIZE).unwrap_or_default());
    let digest = Digest::of(&out);
    out.extend_from_slice(COMMENT_PREFIX);
    out.extend_from_slice(format!("{start:016x}:{digest}").as_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launcher() -> Vec<u8> {
        let elf = vec![0x7f; 5000];
        let appendix = appendix(elf.len() as u64, &[("cpack-job.json", b"{}"), ("manifest.json", b"[1]")]);
        [elf, appendix].concat()
    }

    fn read(file: &[u8]) -> Result<Option<Vec<u8>>, LauncherError> {
        let tail = &file[file.len().saturating_sub(TRAILER_SIZE)..];
        let Some(trailer) = Trailer::read(tail, file.len() as u64)? else { return Ok(None) };
        let appended = &file[trailer.start as usize..][..trailer.size as usize];
        let opened = trailer.open(appended)?;
        assert_eq!(opened.file("nothing"), None);
        Ok(opened.file("manifest.json").map(<[u8]>::to_vec))
    }

    #[test]
    fn launcher_gives_its_files_back_and_is_a_zip() {
        let file = launcher();
        assert_eq!(read(&file), Ok(Some(b"[1]".to_vec())));
        let archive = ::zip::ZipArchive::new(std::io::Cursor::new(&file)).expect("a zip file");
        assert_eq!(archive.file_names().flatten().collect::<Vec<_>>(), ["cpack-job.json", "manifest.json"]);
    }

    #[test]
    fn plain_executable_is_none() {
        assert_eq!(read(&[0x7f; 5000]), Ok(None));
        assert_eq!(read(b"x"), Ok(None));
    }

    #[test]
    fn every_flipped_bit_of_the_job_part_is_refused() {
        let file = launcher();
        // The first seven bytes of the trailer decide whether there is a job at all; a file that lost them is no launcher.
        for at in (5000..file.len()).filter(|at| !(file.len() - TRAILER_SIZE..).take(7).any(|t| t == *at)) {
            for bit in 0..8 {
                let mut bad = file.clone();
                bad[at] ^= 1 << bit;
                assert!(read(&bad).is_err(), "byte {at} bit {bit}");
            }
        }
    }
}
