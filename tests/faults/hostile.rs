//! Archives and documents that mean harm: a table of tricks, and mutants of all of them and of the corpus that is kept in
//! `tests/faults/corpus/`, one directory per target.
//!
//! Nothing may panic, nothing may be written outside the directory that is extracted to, and what is accepted must be what
//! CPython's `zipfile` sees where that accepts it, too. A mutant whose outcome is of a kind not seen before joins the
//! corpus of its run, so that mutations build on each other; one that fails is left in the directory for temporary files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;

use cpack_extract::Limits;
use cpack_format::exit::Exit;
use cpack_format::job::{self, Job};
use cpack_format::launcher::{TRAILER_SIZE, Trailer, appendix};
use cpack_format::manifest::Manifest;
use cpack_format::zip::{MAX_TAIL, Method, local_header_len, read_directory, read_end};
use cpack_pex::info::PexInfo;
use cpack_test::archives::Maker;
use cpack_test::extraction::unzip;
use cpack_test::small_world::{entries, noise};

use crate::random::{Part, Random};

const FILE: u32 = 0o100_644;
const LINK: u32 = 0o120_777;

/// What becomes of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Accepted,
    Refused,
    /// Another reader may see it otherwise: only that nothing bad happens counts.
    Either,
}

type Raw<'a> = (&'a [u8], u32, &'a [u8]);

fn raw(list: &[Raw<'_>]) -> Maker {
    let mut maker = Maker::new(1 << 20);
    for (i, (name, mode, content)) in list.iter().enumerate() {
        let method = if i % 2 == 0 { Method::Store } else { Method::Deflate };
        maker.add_raw(name, *mode, content, method, 0);
    }
    maker
}

/// Tricks that need no change of what a writer makes.
fn tricks() -> Vec<(&'static str, Vec<u8>, Fate)> {
    use Fate::{Accepted, Refused};
    let deep = "d/".repeat(1600) + "x";
    let long = "n".repeat(256);
    let table: &[(&'static str, &[Raw<'_>], Fate)] = &[
        ("plain", &[(b"a", FILE, b"1"), (b"d/b", 0o100_755, b"22"), (b"e/", 0o040_755, b"")], Accepted),
        ("empty", &[], Accepted),
        ("up", &[(b"../x", FILE, b"x")], Refused),
        ("up-inside", &[(b"a/../../x", FILE, b"x")], Refused),
        ("up-and-down", &[(b"a/../b", FILE, b"x")], Refused),
        ("absolute", &[(b"/tmp/cpack-hostile", FILE, b"x")], Refused),
        ("dot", &[(b"./a", FILE, b"x")], Refused),
        ("empty-component", &[(b"a//b", FILE, b"x")], Refused),
        ("nul", &[(b"a\0b", FILE, b"x")], Refused),
        ("backslash", &[(b"..\\x", FILE, b"x")], Accepted),
        ("drive", &[(b"C:x", FILE, b"x")], Accepted),
        ("newline", &[(b"a\nb\x1b[31m", FILE, b"x")], Accepted),
        ("deep", &[(deep.as_bytes(), FILE, b"x")], Refused),
        ("long-name", &[(long.as_bytes(), FILE, b"x")], Refused),
        ("link-then-write", &[(b"l", LINK, b".."), (b"l/x", FILE, b"x")], Refused),
        ("write-then-link", &[(b"l/x", FILE, b"x"), (b"l", LINK, b"..")], Refused),
        ("link-out", &[(b"l", LINK, b"../x")], Refused),
        ("link-absolute", &[(b"l", LINK, b"/etc/passwd")], Refused),
        ("link-through-link", &[(b"a", LINK, b"b/.."), (b"b", LINK, b"c"), (b"c/d", FILE, b"x")], Refused),
        ("link-inside", &[(b"d/l", LINK, b"../a"), (b"a", FILE, b"x")], Accepted),
        ("twice", &[(b"a", FILE, b"1"), (b"a", FILE, b"2")], Refused),
        ("file-and-directory", &[(b"a", FILE, b"1"), (b"a/b", FILE, b"2")], Refused),
        ("case", &[(b"Name", FILE, b"1"), (b"name", FILE, b"2")], Accepted),
        ("composed", &["\u{e9}".as_bytes(), "e\u{301}".as_bytes()].map(|name| (name, FILE, &b"1"[..])), Accepted),
        ("not-unicode", &[(b"\xff\xfe", FILE, b"1")], Accepted),
        ("block-device", &[(b"a", 0o060_644, b"")], Refused),
        ("char-device", &[(b"a", 0o020_644, b"")], Refused),
        ("fifo", &[(b"a", 0o010_644, b"")], Refused),
        ("socket", &[(b"a", 0o140_644, b"")], Refused),
        ("setuid", &[(b"a", 0o106_755, b"1"), (b"b", 0o101_644, b"2")], Accepted),
    ];
    table.iter().map(|(name, list, fate)| (*name, raw(list).zip(), *fate)).collect()
}

type Change = fn(&mut Maker);

/// Headers, sizes and places that lie.
fn lies() -> Vec<(&'static str, Vec<u8>, Fate)> {
    use Fate::{Accepted, Either, Refused};
    let changes: &[(&'static str, Change)] = &[
        ("same-place", |m| m.entries[1].header_offset = m.entries[0].header_offset),
        ("overlap", |m| m.entries[0].compressed_size += 40),
        ("far-away", |m| m.entries[1].header_offset = u64::MAX - 9),
        ("other-name", |m| m.entries[0].name = b"zz"[..].into()),
        ("other-method", |m| m.entries[0].method = Method::Deflate),
        ("other-size", |m| m.entries[1].size += 1),
        ("wrong-crc", |m| m.entries[0].crc32 ^= 1),
        ("bomb-ratio", |m| m.entries[1].size = 40 << 30),
        ("bomb-zip64", |m| m.entries[1].size = u64::MAX),
        ("bomb-large", |m| m.entries[1].size = 3 << 30),
    ];
    let two = || raw(&[(b"a", FILE, &noise(900, 1)), (b"b", FILE, &noise(900, 2))]);
    let mut list: Vec<_> = changes
        .iter()
        .map(|(name, change)| {
            let mut maker = two();
            change(&mut maker);
            (*name, maker.zip(), Refused)
        })
        .collect();
    let whole = two().zip();
    list.push(("prefix", [b"#!/usr/bin/env python3\n".as_slice(), &whole].concat(), Accepted));
    list.push(("suffix", [whole.as_slice(), b"junk behind"].concat(), Either));
    list.push(("twice-over", [whole.as_slice(), &raw(&[(b"c", FILE, b"x")]).zip()].concat(), Either));
    list.push(("end-in-comment", commented(&whole, &whole[whole.len() - 22..]), Either));
    let nested = raw(&[(b"inner.zip", FILE, &whole)]).zip();
    list.push(("nested", nested, Accepted));
    let mut many = Maker::new(1 << 20);
    (0..3000).for_each(|i| many.add_raw(format!("d{}/f{i}", i % 50).as_bytes(), FILE, b"", Method::Store, 0));
    list.push(("many", many.zip(), Accepted));
    let mut count = many.zip();
    let end = count.len() - 22;
    count[end + 8..end + 12].copy_from_slice(&[9, 0, 9, 0]);
    list.push(("wrong-count", count, Refused));
    list.push(("zip64-count", too_many(), Refused));
    list
}

/// One entry by hand: what its local header, its directory entry and the end of the archive say.
struct Zip64 {
    /// Sizes in the headers, and the offset in the directory: 32 bits.
    sizes: u32,
    offset: u32,
    /// What the extra field of the directory entry has beside its head.
    extra: Option<Vec<u64>>,
    /// Entries, offset of the directory and number of disks in the zip64 end record; and where the locator says it is.
    end: Option<(u64, u64, u32, Option<u64>)>,
    /// Count, size and offset in the plain end record, where they are not what they should be.
    sentinels: bool,
}

impl Zip64 {
    const CONTENT: &[u8] = b"zip64";

    fn plain() -> Self {
        Self { sizes: 5, offset: 0, extra: None, end: None, sentinels: false }
    }

    fn bytes(&self) -> Vec<u8> {
        let crc = crc32fast::hash(Self::CONTENT).to_le_bytes();
        let extra: Vec<u8> = self
            .extra
            .iter()
            .flat_map(|values| {
                let len = u16::try_from(values.len() * 8).expect("few");
                [1, len]
                    .iter()
                    .flat_map(|n| n.to_le_bytes())
                    .chain(values.iter().flat_map(|v| v.to_le_bytes()))
                    .collect::<Vec<u8>>()
            })
            .collect();
        let lens = |extra: usize| [1, u16::try_from(extra).expect("few")].map(u16::to_le_bytes).concat();
        let common = [&[45, 0, 0, 0, 0, 0, 0, 0, 0x21, 0][..], &crc].concat();
        let five = 5u32.to_le_bytes();
        let mut out = [&b"PK\x03\x04"[..], &common, &five, &five, &lens(0), b"a", Self::CONTENT].concat();
        let start = out.len() as u64;
        let sizes = self.sizes.to_le_bytes();
        out.extend([&b"PK\x01\x02\x2d\x03"[..], &common, &sizes, &sizes, &lens(extra.len()), &[0; 6]].concat());
        out.extend([&FILE.wrapping_shl(16).to_le_bytes()[..], &self.offset.to_le_bytes(), b"a", &extra].concat());
        let size = out.len() as u64 - start;
        if let Some((entries, shift, disks, locator)) = self.end {
            let at = out.len() as u64;
            out.extend([&b"PK\x06\x06"[..], &44u64.to_le_bytes(), &[45, 3, 45, 0], &[0; 8]].concat());
            [entries, entries, size, start.wrapping_add(shift)].iter().for_each(|n| out.extend(n.to_le_bytes()));
            out.extend(
                [&b"PK\x06\x07"[..], &[0; 4], &locator.unwrap_or(at).to_le_bytes(), &disks.to_le_bytes()].concat(),
            );
        }
        let (count, size, start) = match self.sentinels {
            true => (u16::MAX, u32::MAX, u32::MAX),
            false => (1, u32::try_from(size).expect("small"), u32::try_from(start).expect("small")),
        };
        let counts = [count, count].map(u16::to_le_bytes).concat();
        out.extend([&b"PK\x05\x06"[..], &[0; 4], &counts, &size.to_le_bytes(), &start.to_le_bytes(), &[0; 2]].concat());
        out
    }
}

/// What zip64 makes possible: fields that are elsewhere, missing, short or wrong.
fn zip64_edges() -> Vec<(&'static str, Vec<u8>, Fate)> {
    use Fate::{Accepted, Either, Refused};
    const ALL: u32 = u32::MAX;
    let plain = Zip64::plain;
    let extra = |sizes, offset, extra: &[u64]| Zip64 { sizes, offset, extra: Some(extra.to_vec()), ..plain() };
    let end = |entries, shift, disks, locator| Zip64 {
        end: Some((entries, shift, disks, locator)),
        sentinels: true,
        ..plain()
    };
    let table = [
        ("zip64-none", plain(), Accepted),
        ("zip64-sizes", extra(ALL, 0, &[5, 5]), Accepted),
        ("zip64-all", extra(ALL, ALL, &[5, 5, 0]), Accepted),
        ("zip64-offset", extra(5, ALL, &[0]), Accepted),
        ("zip64-not-needed", extra(5, 0, &[5, 5]), Either),
        ("zip64-no-extra", Zip64 { sizes: ALL, ..plain() }, Refused),
        ("zip64-short-extra", extra(ALL, 0, &[5]), Refused),
        ("zip64-empty-extra", extra(ALL, 0, &[]), Refused),
        ("zip64-large-sizes", extra(ALL, 0, &[1 << 40, 5]), Refused),
        ("zip64-largest-sizes", extra(ALL, 0, &[u64::MAX, u64::MAX]), Refused),
        ("zip64-offset-outside", extra(5, ALL, &[1 << 60]), Refused),
        ("zip64-offset-no-file-has", extra(ALL, ALL, &[16 << 20, 16 << 20, 1 << 63]), Refused),
        ("zip64-offset-wraps", extra(5, ALL, &[u64::MAX]), Refused),
        ("zip64-end", end(1, 0, 1, None), Accepted),
        ("zip64-end-not-needed", Zip64 { sentinels: false, ..end(1, 0, 1, None) }, Either),
        ("zip64-end-count", end(2, 0, 1, None), Refused),
        ("zip64-end-count-huge", end(u64::MAX, 0, 1, None), Refused),
        ("zip64-end-no-count", end(0, 0, 1, None), Refused),
        ("zip64-end-offset", end(1, 1 << 40, 1, None), Refused),
        ("zip64-end-offset-before", end(1, u64::MAX, 1, None), Either),
        ("zip64-end-disks", end(1, 0, 2, None), Refused),
        ("zip64-end-elsewhere", end(1, 0, 1, Some(1 << 40)), Refused),
        ("zip64-end-wraps", end(1, 0, 1, Some(u64::MAX)), Refused),
        ("zip64-no-end", Zip64 { sentinels: true, ..plain() }, Refused),
    ];
    table.map(|(name, zip, fate)| (name, zip.bytes(), fate)).into()
}

/// More entries than are allowed, of which only the directory is there.
fn too_many() -> Vec<u8> {
    let mut maker = Maker::new(1 << 20);
    maker.add_raw(b"a", FILE, b"", Method::Store, 0);
    let entry = maker.entries[0].clone();
    maker.entries = vec![entry; 250_001];
    maker.zip()
}

/// An archive with a comment.
fn commented(zip: &[u8], comment: &[u8]) -> Vec<u8> {
    let mut bytes = zip.to_vec();
    let at = bytes.len() - 2;
    bytes[at..].copy_from_slice(&u16::try_from(comment.len()).expect("small").to_le_bytes());
    bytes.extend_from_slice(comment);
    bytes
}

/// Contents by path, as this project or another reader sees them. Links have their targets.
type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

/// Extracts, and checks that nothing else happened. The error's chain where it is refused.
fn extract(bytes: &[u8], scratch: &Path) -> Result<Contents, String> {
    let (outer, into, file) = (scratch.join("outer"), scratch.join("outer/into"), scratch.join("zip"));
    fs::create_dir_all(&into).expect("creates");
    fs::write(&file, bytes).expect("writes");
    let limits = Limits { threads: 2, ..Limits::default() };
    let result = catch_unwind(AssertUnwindSafe(|| unzip(&file, &into, &limits, &AtomicBool::new(false))));
    let result = result.unwrap_or_else(|_| panic!("panicked on {}", keep(bytes)));
    let mut contents = Contents::new();
    collect(&into, &into, &mut contents);
    let strange = entries(scratch).into_iter().chain(entries(&outer)).find(|p| *p != outer && *p != into && *p != file);
    assert_eq!(strange, None, "written outside by {}", keep(bytes));
    assert!(!Path::new("/tmp/cpack-hostile").exists());
    fs::remove_dir_all(&into).expect("removes");
    match result {
        Ok(_) => Ok(contents),
        Err(failure) => {
            let disk = failure.exit() == Exit::Disk;
            assert!(failure.exit() == Exit::Artifact || disk, "{failure:?} by {}", keep(bytes));
            let mut line = failure.to_string();
            let mut source = std::error::Error::source(&failure);
            while let Some(error) = source {
                line = format!("{line}: {error}");
                source = error.source();
            }
            Err(line)
        }
    }
}

fn collect(root: &Path, directory: &Path, contents: &mut Contents) {
    for path in entries(directory) {
        let metadata = fs::symlink_metadata(&path).expect("stat");
        let kind = metadata.file_type();
        let special = kind.is_fifo() || kind.is_socket() || kind.is_block_device() || kind.is_char_device();
        assert!(!special && (metadata.is_symlink() || metadata.mode() & 0o7000 == 0), "{}", path.display());
        let name = path.strip_prefix(root).expect("below").as_os_str().as_encoded_bytes().to_vec();
        if metadata.is_dir() {
            collect(root, &path, contents);
        } else if metadata.is_symlink() {
            contents.insert(name, fs::read_link(&path).expect("a link").as_os_str().as_encoded_bytes().to_vec());
        } else {
            contents.insert(name, fs::read(&path).expect("reads"));
        }
    }
}

/// Keeps an input that failed; where.
fn keep(bytes: &[u8]) -> String {
    let name = format!("cpack-hostile-{}.bin", &cpack_format::Digest::of(bytes).to_hex()[..16]);
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::write(&path, bytes);
    path.display().to_string()
}

/// What CPython sees in each file of a directory: one line of JSON, sizes and CRCs by name, or null.
const SEEN_BY_PYTHON: &str = r"
import json, os, sys, zipfile, zlib
out = {}
for name in sorted(os.listdir(sys.argv[1])):
    try:
        with zipfile.ZipFile(os.path.join(sys.argv[1], name)) as z:
            files = {}
            for info in z.infolist():
                if info.filename.endswith('/'):
                    continue
                data = z.read(info)
                raw = info.filename.encode('utf-8' if info.flag_bits & 0x800 else 'cp437')
                files[raw.hex()] = [len(data), zlib.crc32(data)]
            out[name] = files
    except Exception:
        out[name] = None
json.dump(out, sys.stdout)
";

/// Compares what was accepted here with what CPython sees; how many both accepted.
fn compare(accepted: &[(String, Vec<u8>, Contents)]) -> usize {
    let directory = tempfile::tempdir().expect("a directory");
    for (i, (_, bytes, _)) in accepted.iter().enumerate() {
        fs::write(directory.path().join(format!("{i:06}")), bytes).expect("writes");
    }
    let mut python = Command::new(&cpack_test::small_world::python().path);
    let output = python.args(["-I", "-c", SEEN_BY_PYTHON]).arg(directory.path()).output().expect("starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let seen: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let mut both = 0;
    for (i, (what, bytes, contents)) in accepted.iter().enumerate() {
        let Some(theirs) = seen[format!("{i:06}")].as_object() else { continue };
        both += 1;
        let hex = |name: &[u8]| name.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let ours: BTreeMap<String, serde_json::Value> = contents
            .iter()
            .map(|(name, data)| (hex(name), serde_json::json!([data.len(), crc32fast::hash(data)])))
            .collect();
        let theirs: BTreeMap<String, serde_json::Value> = theirs.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        assert_eq!(ours, theirs, "{what}: {}", keep(bytes));
    }
    both
}

#[test]
fn extraction_refuses_tricks_and_sees_what_cpython_sees() {
    let _part = Part::once("a table of hostile archives");
    let directory = tempfile::tempdir().expect("a directory");
    let mut accepted = Vec::new();
    for (name, bytes, fate) in tricks().into_iter().chain(lies()).chain(zip64_edges()) {
        match (extract(&bytes, directory.path()), fate) {
            (Ok(contents), Fate::Accepted | Fate::Either) => accepted.push((name.to_owned(), bytes, contents)),
            (Err(_), Fate::Refused | Fate::Either) => {}
            (result, _) => panic!("{name} should be {fate:?}: {result:?}"),
        }
    }
    let both = compare(&accepted);
    assert!(both >= 12, "only {both} accepted by both");
}

/// Changes bytes as damage and malice do.
fn mutate(bytes: &mut Vec<u8>, others: &[Vec<u8>], random: &mut Random) {
    const WORDS: [u64; 8] = [0, 1, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 0x7fff_ffff_ffff_ffff, u64::MAX];
    for _ in 0..=random.below(3) {
        let len = bytes.len();
        let at = random.below(len);
        match random.below(8) {
            0 | 1 if len > 0 => bytes[at] ^= 1 << random.below(8),
            2 if len > 0 => bytes[at] = random.next() as u8,
            3 => bytes.truncate(at),
            4 if len > 8 => {
                let width = [1, 2, 4, 8][random.below(4)].min(len - at);
                bytes[at..at + width].copy_from_slice(&random.pick(&WORDS).to_le_bytes()[..width]);
            }
            5 => {
                let part = bytes[at..(at + random.below(60)).min(len)].to_vec();
                let to = random.below(len);
                bytes.splice(to..to, part);
            }
            6 if !others.is_empty() => {
                let other = random.pick(others);
                let from = random.below(other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            _ => {
                let end = (at + random.below(40)).min(len);
                bytes.drain(at..end);
            }
        }
    }
}

/// What a target says to an input: a short text, the same for outcomes of one kind.
type Target = fn(&[u8]) -> String;

fn outcome<T>(result: Result<T, impl std::fmt::Display>) -> String {
    match result {
        Ok(_) => "accepted".into(),
        Err(error) => error.to_string().chars().filter(|c| c.is_ascii_alphabetic() || *c == ' ').take(60).collect(),
    }
}

fn central_directory(bytes: &[u8]) -> String {
    let tail = &bytes[bytes.len().saturating_sub(MAX_TAIL)..];
    let end = match read_end(tail, bytes.len() as u64) {
        Ok(end) => end,
        Err(error) => return outcome::<()>(Err(error)),
    };
    let range = usize::try_from(end.directory_offset).ok().zip(usize::try_from(end.directory_size).ok());
    let directory = range.and_then(|(at, len)| bytes.get(at..)?.get(..len)).expect("a directory inside the file");
    let entries = read_directory(directory, &end);
    for entry in entries.iter().flatten() {
        let at = usize::try_from(entry.header_offset).unwrap_or(usize::MAX).min(bytes.len());
        let _ = local_header_len(&bytes[at..], entry);
    }
    outcome(entries)
}

fn manifest(bytes: &[u8]) -> String {
    let parsed = Manifest::parse(bytes);
    if let Ok(manifest) = &parsed {
        assert_eq!(Manifest::parse(&manifest.to_bytes()).as_ref(), Ok(manifest));
    }
    outcome(parsed)
}

fn job_file(bytes: &[u8]) -> String {
    let parsed = Job::parse(bytes);
    if let Ok(job) = &parsed {
        assert_eq!(Job::parse(&job.to_bytes()).as_ref(), Ok(job));
    }
    outcome(parsed)
}

fn launcher(bytes: &[u8]) -> String {
    let tail = &bytes[bytes.len().saturating_sub(TRAILER_SIZE)..];
    match Trailer::read(tail, bytes.len() as u64) {
        Ok(Some(trailer)) => {
            let start = usize::try_from(trailer.start).expect("inside");
            let appended = &bytes[start..][..usize::try_from(trailer.size).expect("inside")];
            outcome(trailer.open(appended))
        }
        Ok(None) => "none".into(),
        Err(error) => outcome::<()>(Err(error)),
    }
}

fn pex_info(bytes: &[u8]) -> String {
    outcome(PexInfo::parse(bytes))
}

fn record(bytes: &[u8]) -> String {
    let rows = cpack_discover::record::parse(bytes);
    let base = cpack_format::SafePath::new(b"lib/python3.11/site-packages").expect("safe");
    for row in rows.iter().flatten() {
        let located = cpack_discover::record::locate(&row.path, Some(&base), &[b"/opt/env".to_vec()]);
        assert!(located.is_none_or(|path| cpack_format::SafePath::new(path.as_bytes()).is_ok()));
    }
    match rows {
        // Little is refused: a RECORD only says where files are.
        Ok(rows) if rows.len() < 4 => format!("{} rows", rows.len()),
        rows => outcome(rows),
    }
}

/// The inputs that are kept for a target.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/faults/corpus").join(target);
    if target == "launcher" {
        // It ends in a digest, which is made here.
        let job = corpus("job").remove(0);
        let appended = appendix(40, &[(job::FILE_NAME, &job), (job::MANIFEST_NAME, &corpus("manifest").remove(0))]);
        return vec![[&[0x7f; 40][..], &appended].concat()];
    }
    let found: Vec<_> = entries(&directory).iter().map(|path| fs::read(path).expect("reads")).collect();
    assert!(!found.is_empty(), "{} is empty", directory.display());
    found
}

/// Feeds mutants to a target for some time. What it says is the measure of what was reached: an input that brings out a
/// new kind of answer is mutated further.
fn fuzz(name: &'static str, target: Target) {
    let part = Part::timed(name, 2000);
    let mut random = part.random();
    let mut inputs = corpus(name);
    if name == "central-directory" {
        inputs.extend(tricks().into_iter().chain(zip64_edges()).map(|(_, bytes, _)| bytes));
    }
    let mut kinds: BTreeSet<String> = inputs.iter().map(|bytes| target(bytes)).collect();
    let seeds = inputs.len();
    for _ in part.each() {
        let mut bytes = random.pick(&inputs).clone();
        mutate(&mut bytes, &inputs, &mut random);
        let kind = catch_unwind(AssertUnwindSafe(|| target(&bytes)));
        let kind = kind.unwrap_or_else(|_| panic!("{name} panicked on {}", keep(&bytes)));
        if kinds.insert(kind) {
            inputs.push(bytes);
        }
    }
    assert!(kinds.contains("accepted") && inputs.len() > seeds, "{name}: {kinds:?}");
}

/// A test for each target, so that they run beside each other.
macro_rules! fuzz_targets {
    ($($test:ident: $name:literal, $target:path;)*) => {
        $(
            #[test]
            fn $test() {
                fuzz($name, $target);
            }
        )*
    };
}

fuzz_targets! {
    fuzz_central_directory: "central-directory", central_directory;
    fuzz_manifest: "manifest", manifest;
    fuzz_job: "job", job_file;
    fuzz_launcher: "launcher", launcher;
    fuzz_pex_info: "pex-info", pex_info;
    fuzz_record: "record", record;
}

/// How many accepted mutants CPython reads at once.
const COMPARED: usize = 500;

#[test]
fn fuzz_extraction() {
    let part = Part::timed("extraction, compared with CPython", 1000);
    let mut random = part.random();
    let directory = tempfile::tempdir().expect("a directory");
    let mut inputs = corpus("central-directory");
    let small = |(name, bytes, _): (&str, Vec<u8>, Fate)| (bytes.len() < 8000 && name != "plain").then_some(bytes);
    inputs.extend(tricks().into_iter().chain(lies()).chain(zip64_edges()).filter_map(small));
    let mut good: Vec<_> = inputs.iter().filter(|bytes| extract(bytes, directory.path()).is_ok()).cloned().collect();
    let (mut kinds, mut accepted, mut both, mut rounds) = (BTreeSet::new(), Vec::new(), 0, 0);
    for round in part.each() {
        // Kinds of refusal are many: half of the mutants are made of what is accepted, so that much is to be compared.
        let from = if random.once_in(2) { &inputs } else { &good };
        let mut bytes = random.pick(from).clone();
        mutate(&mut bytes, &inputs, &mut random);
        let kind = match extract(&bytes, directory.path()) {
            Ok(contents) => {
                let kind = format!("accepted {}", contents.len().min(5));
                if !kinds.contains(&kind) {
                    good.push(bytes.clone());
                }
                accepted.push((format!("mutant {round}"), bytes.clone(), contents));
                kind
            }
            Err(line) => outcome::<()>(Err(line.rsplit(": ").next().unwrap_or_default())),
        };
        if kinds.insert(kind) {
            inputs.push(bytes);
        }
        if accepted.len() == COMPARED {
            both += compare(&std::mem::take(&mut accepted));
        }
        rounds = round;
    }
    both += compare(&accepted);
    assert!(kinds.len() > 10 && both > rounds / 100, "{} kinds, {both} accepted by both", kinds.len());
}
