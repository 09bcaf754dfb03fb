//! The members of a tar, one after the other, each checked before anything is done with it.
//!
//! Names of any length are read, as GNU's extension (`L`, `K`) and PAX records (`path`, `linkpath`, `size`, `mtime`) give them. An
//! archive must end with a block of zeros: `tar` lets one pass that was cut between two members.

use std::fmt;
use std::io::{self, BufRead};
use std::time::{Duration, SystemTime};

use cpack_format::SafePath;
use cpack_format::path::PathError;
use tar::{EntryType, Header};

/// Bytes of a header, and what content is filled up to.
const BLOCK: usize = 512;

/// Longest name or list of PAX records, in bytes. The longest path of Linux has 4096.
const LONGEST: u64 = 1 << 20;

/// One member. Its content is what [`Members::chunk`] returns next.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) path: SafePath,
    pub(crate) kind: MemberKind,
    /// Bytes of content.
    pub(crate) size: u64,
    pub(crate) modified: SystemTime,
}

/// What a member is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum MemberKind {
    File {
        executable: bool,
    },
    Directory,
    /// A symbolic link with its target.
    Link(Vec<u8>),
    /// Another name of an earlier file.
    SameAs(SafePath),
}

/// Why a tar is not read further.
#[derive(Debug)]
pub(crate) enum TarError {
    /// The stream of its bytes failed or ended.
    Stream(io::Error),
    /// This member is refused.
    Member { name: String, reason: String },
}

impl TarError {
    pub(crate) fn of(name: &(impl fmt::Display + ?Sized), reason: impl Into<String>) -> Self {
        Self::Member { name: name.to_string(), reason: reason.into() }
    }
}

impl From<io::Error> for TarError {
    fn from(source: io::Error) -> Self {
        Self::Stream(source)
    }
}

/// What headers before a member say of it.
#[derive(Debug, Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
    modified: Option<u64>,
    sparse: bool,
}

/// The members of the tar that `reader` reads.
#[derive(Debug)]
pub(crate) struct Members<R> {
    reader: R,
    /// Bytes of the current member's content, and of what fills it up, that were not read.
    content: u64,
    padding: u64,
}

impl<R: BufRead> Members<R> {
    pub(crate) const fn new(reader: R) -> Self {
        Self { reader, content: 0, padding: 0 }
    }

    /// The next member; `None` at the end. Skips what was not read of the last one.
    pub(crate) fn next(&mut self) -> Result<Option<Member>, TarError> {
        let mut extensions = Extensions::default();
        loop {
            self.skip()?;
            let Some(header) = self.header()? else { return Ok(None) };
            let shown = String::from_utf8_lossy(&header.path_bytes()).into_owned();
            let size = header.entry_size().map_err(|_| TarError::of(&shown, "has a size that is no number"))?;
            self.begin(&shown, size)?;
            match header.entry_type() {
                EntryType::GNULongName => extensions.path = Some(self.name(&shown)?),
                EntryType::GNULongLink => extensions.target = Some(self.name(&shown)?),
                EntryType::XHeader => {
                    let records = self.whole(&shown)?;
                    extensions.add(&records).ok_or_else(|| TarError::of(&shown, "has damaged PAX records"))?;
                }
                EntryType::XGlobalHeader => self.global(&shown)?,
                kind => match self.member(&header, kind, std::mem::take(&mut extensions), size)? {
                    // `tar -C DIRECTORY .` lists the directory itself.
                    None => {}
                    member => return Ok(member),
                },
            }
        }
    }

    /// The next bytes of the current member's content; none at its end. [`Members::consume`] takes them.
    pub(crate) fn chunk(&mut self) -> io::Result<&[u8]> {
        if self.content == 0 {
            return Ok(&[]);
        }
        let chunk = self.reader.fill_buf()?;
        if chunk.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let length = usize::try_from(self.content).unwrap_or(usize::MAX).min(chunk.len());
        Ok(chunk.get(..length).unwrap_or_default())
    }

    pub(crate) fn consume(&mut self, bytes: usize) {
        self.reader.consume(bytes);
        self.content = self.content.saturating_sub(bytes as u64);
    }

    /// Reads what follows the end, so that the checksums of a compressed stream are compared. Returns how much it was.
    pub(crate) fn rest(&mut self, most: u64) -> Result<u64, TarError> {
        let mut read = 0;
        loop {
            let length = self.reader.fill_buf()?.len();
            if length == 0 || read > most {
                return Ok(read);
            }
            self.reader.consume(length);
            read += length as u64;
        }
    }

    /// The member that a header begins; `None` for the directory that everything is in.
    fn member(
        &mut self,
        header: &Header,
        kind: EntryType,
        extensions: Extensions,
        own_size: u64,
    ) -> Result<Option<Member>, TarError> {
        let name = extensions.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let shown = String::from_utf8_lossy(&name).into_owned();
        let size = extensions.size.unwrap_or(own_size);
        self.begin(&shown, size)?;
        let target = || extensions.target.clone().or_else(|| Some(header.link_name_bytes()?.into_owned()));
        let needs_target = || target().ok_or_else(|| TarError::of(&shown, "is a link to nothing"));
        let kind = match kind {
            _ if extensions.sparse => return Err(sparse(&shown)),
            EntryType::Regular | EntryType::Continuous if name.ends_with(b"/") => MemberKind::Directory,
            EntryType::Regular | EntryType::Continuous => {
                let mode = header.mode().map_err(|_| TarError::of(&shown, "has a mode that is no number"))?;
                MemberKind::File { executable: mode & 0o111 != 0 }
            }
            EntryType::Directory => MemberKind::Directory,
            EntryType::Symlink => MemberKind::Link(needs_target()?),
            EntryType::Link => {
                let target = needs_target()?;
                let path = SafePath::new(plain(&target));
                let reason = |_| TarError::of(&shown, "is a link that leads out of the archive");
                MemberKind::SameAs(path.map_err(reason)?)
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                return Err(TarError::of(&shown, "is a device or fifo"));
            }
            EntryType::GNUSparse => return Err(sparse(&shown)),
            other => {
                return Err(TarError::of(&shown, format!("is of the unknown type {:?}", char::from(other.as_byte()))));
            }
        };
        let path = match (plain(&name), &kind) {
            (b"" | b".", MemberKind::Directory) if !name.starts_with(b"/") => return Ok(None),
            (plain, _) => {
                let reason = |e: PathError| TarError::of(&shown, format!("has an unsafe path: {}", e.reason));
                SafePath::new(plain).map_err(reason)?
            }
        };
        if size > 0 && !matches!(kind, MemberKind::File { .. }) {
            return Err(TarError::of(&shown, "has content although it is no file"));
        }
        let seconds = extensions.modified.or_else(|| header.mtime().ok()).unwrap_or(0);
        let modified =
            SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(SystemTime::UNIX_EPOCH);
        Ok(Some(Member { path, kind, size, modified }))
    }

    /// Reads a header and compares its checksum. `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<Header>, TarError> {
        let mut header = Header::new_old();
        self.reader.read_exact(header.as_mut_bytes())?;
        let bytes = header.as_bytes();
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let (before, rest) = bytes.split_at(148);
        let after = rest.get(8..).unwrap_or_default();
        let sum = before.iter().chain(after).map(|byte| u32::from(*byte)).sum::<u32>() + 8 * u32::from(b' ');
        if header.cksum().is_ok_and(|expected| expected == sum) {
            return Ok(Some(header));
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "a header has another checksum than it says, or this is no tar")
            .into())
    }

    fn begin(&mut self, shown: &str, size: u64) -> Result<(), TarError> {
        let padded = size.checked_next_multiple_of(BLOCK as u64);
        self.padding = padded.ok_or_else(|| TarError::of(shown, "has an impossible size"))? - size;
        self.content = size;
        Ok(())
    }

    /// Skips the rest of the current member.
    fn skip(&mut self) -> io::Result<()> {
        self.content = self.content.saturating_add(self.padding);
        self.padding = 0;
        while self.content > 0 {
            let length = self.chunk()?.len();
            self.consume(length);
        }
        Ok(())
    }

    /// The whole content of a header that describes the next member.
    fn whole(&mut self, shown: &str) -> Result<Vec<u8>, TarError> {
        if self.content > LONGEST {
            return Err(TarError::of(
                shown,
                format!("has {} bytes of name or records, more than {LONGEST}", self.content),
            ));
        }
        let mut bytes = Vec::new();
        while self.content > 0 {
            let chunk = self.chunk()?;
            bytes.extend_from_slice(chunk);
            let length = chunk.len();
            self.consume(length);
        }
        Ok(bytes)
    }

    fn name(&mut self, shown: &str) -> Result<Vec<u8>, TarError> {
        let mut bytes = self.whole(shown)?;
        if bytes.last() == Some(&0) {
            bytes.pop();
        }
        Ok(bytes)
    }

    /// Reads records for all members. `git archive` notes its commit there; none may change what a member is.
    fn global(&mut self, shown: &str) -> Result<(), TarError> {
        let mut found = Extensions::default();
        let records = self.whole(shown)?;
        found.add(&records).ok_or_else(|| TarError::of(shown, "has damaged PAX records"))?;
        match found {
            Extensions { path: None, target: None, size: None, sparse: false, .. } => Ok(()),
            _ => Err(TarError::of(shown, "gives all members one name or size")),
        }
    }
}

impl Extensions {
    /// Adds PAX records, `LENGTH KEY=VALUE` and the end of a line each. `None` if they are damaged.
    fn add(&mut self, mut records: &[u8]) -> Option<()> {
        while !records.is_empty() {
            let digits = records.iter().position(|byte| *byte == b' ')?;
            let length: usize = std::str::from_utf8(records.get(..digits)?).ok()?.parse().ok()?;
            let (record, rest) = records.split_at_checked(length)?;
            let record = record.get(digits + 1..)?.strip_suffix(b"\n")?;
            let (key, value) = record.split_at_checked(record.iter().position(|byte| *byte == b'=')?)?;
            let value = value.get(1..)?;
            // A time may have a fraction.
            let number = || {
                let whole = value.split(|byte| *byte == b'.').next()?;
                std::str::from_utf8(whole).ok()?.parse::<u64>().ok()
            };
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.target = Some(value.to_vec()),
                b"size" => self.size = Some(number()?),
                b"mtime" => self.modified = number(),
                _ => self.sparse |= key.starts_with(b"GNU.sparse."),
            }
            records = rest;
        }
        Some(())
    }
}

fn sparse(shown: &str) -> TarError {
    TarError::of(shown, "is sparse: pack it without --sparse")
}

/// A name without `./` before it and `/` behind it.
fn plain(name: &[u8]) -> &[u8] {
    let mut name = name;
    while let Some(rest) = name.strip_prefix(b"./") {
        name = rest;
    }
    while let Some(rest) = name.strip_suffix(b"/") {
        name = rest;
    }
    name
}
