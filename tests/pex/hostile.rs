//! Damaged and hostile PEX files: one line, an exit code of ours, nothing left behind.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use cpack_test::programs::{World, boot, text};
use zip::write::SimpleFileOptions;

use crate::Workshop;

/// A small PEX-INFO of one distribution.
const INFO: &str = r#"{"distributions":{"a-1-py3-none-any.whl":"0"},"requirements":["a"],"entry_point":"a"}"#;

/// Writes a zip of these entries: name, content, unix mode.
fn pex_of(path: &Path, entries: &[(&str, &[u8], u32)]) {
    let mut zip = zip::ZipWriter::new(File::create(path).expect("creates"));
    for (name, content, mode) in entries {
        let options = SimpleFileOptions::default().unix_permissions(*mode);
        if mode & 0o170_000 == 0o120_000 {
            zip.add_symlink(*name, String::from_utf8_lossy(content), options).expect("adds");
        } else {
            zip.start_file(*name, options).expect("starts");
            zip.write_all(content).expect("writes");
        }
    }
    zip.finish().expect("finishes");
}

/// Files below the node's directory that are more than the empty cache's own.
fn left(world: &World) -> Vec<PathBuf> {
    fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                collect(&path, found);
            } else {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    collect(&world.path("node"), &mut found);
    found.retain(|path| !path.components().any(|part| part.as_os_str() == "locks"));
    found
}

/// Starts `pex`, which must fail with one line.
fn refused(what: &str, pex: &Path) -> String {
    let world = World::new();
    let before = fs::read_dir(world.directory.path()).expect("reads").count();
    let output = world.command(boot()).args(["--cpack", "exec"]).arg(pex).arg("x").output().expect("starts");
    let stderr = text(&output.stderr);
    let code = output.status.code();
    assert!(code.is_some_and(|code| (80..=89).contains(&code)), "{what}: exit {code:?}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{what}: {stderr}");
    assert!(stderr.starts_with("cpack-boot: ") && !stderr.contains("internal fault"), "{what}: {stderr}");
    assert_eq!(text(&output.stdout), "", "{what}");
    assert_eq!(left(&world), Vec::<PathBuf>::new(), "{what}: {stderr}");
    assert_eq!(fs::read_dir(world.directory.path()).expect("reads").count(), before, "{what}");
    stderr
}

#[test]
fn damaged_pex_files_are_refused_in_one_line_and_leave_nothing() {
    let workshop = Workshop::new();
    let directory = tempfile::tempdir().expect("a directory");
    let damaged = directory.path().join("damaged.pex");
    let whole = fs::read(workshop.at("repository.pex")).expect("reads");
    for part in [1, 10, 50, 90, 99] {
        fs::write(&damaged, &whole[..whole.len() * part / 100]).expect("writes");
        refused(&format!("cut at {part} %"), &damaged);
    }
    fs::write(&damaged, &whole[..whole.len() - 1]).expect("writes");
    refused("cut by a byte", &damaged);
    // Content and name of entries that are needed: found by their names in local headers and in the directory.
    let find =
        |needle: &[u8], from: usize| whole[from..].windows(needle.len()).position(|w| w == needle).map(|at| at + from);
    let local = find(b"app/report.py", 0).expect("an entry");
    let central = find(b"app/report.py", local + 1).expect("an entry of the directory");
    for (what, at) in [
        ("data", local + 60),
        ("the method", central - 46 + 10),
        ("a checksum", central - 46 + 16),
        ("a local name", local),
    ] {
        let mut bytes = whole.clone();
        bytes[at] ^= 0xff;
        fs::write(&damaged, bytes).expect("writes");
        refused(what, &damaged);
    }
}

/// Upstream extracts with Python's `zipfile`, which makes no links.
#[test]
fn pex_link_that_leaves_becomes_file_that_names_its_target() {
    let (directory, world) = (tempfile::tempdir().expect("a directory"), World::new());
    let path = directory.path().join("link.pex");
    let module = (".deps/a-1-py3-none-any.whl/a.py", &b"print('ran')"[..], 0o644);
    pex_of(&path, &[("PEX-INFO", INFO.as_bytes(), 0o644), module, ("link", b"/etc/passwd", 0o120_777)]);
    let output = world.command(boot()).args(["--cpack", "exec"]).arg(&path).output().expect("starts");
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "ran\n".into()), "{}", text(&output.stderr));
    let links: Vec<_> = left(&world).into_iter().filter(|path| path.ends_with("link")).collect();
    assert!(!links.is_empty(), "extracted nowhere");
    for link in links {
        assert!(fs::symlink_metadata(&link).expect("stat").is_file(), "{}", link.display());
        assert_eq!(fs::read(&link).expect("reads"), b"/etc/passwd");
    }
}

#[test]
fn hostile_pex_files_are_refused_in_one_line_and_leave_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("hostile.pex");
    let info = ("PEX-INFO", INFO.as_bytes(), 0o644);
    let module = (".deps/a-1-py3-none-any.whl/a.py", &b"print()"[..], 0o644);
    for (what, entry) in [
        ("code that leaves", ("../evil.py", &b"x"[..], 0o644)),
        ("a distribution that leaves", (".deps/a-1-py3-none-any.whl/../../../../evil.py", b"x", 0o644)),
        ("data that leaves", (".deps/a-1-py3-none-any.whl/.prefix/data/../../evil", b"x", 0o644)),
        ("an absolute name", ("/tmp/evil.py", b"x", 0o644)),
        ("a file below a file", (".deps/a-1-py3-none-any.whl/a.py/b.py", b"x", 0o644)),
        ("a long name", (&format!("{}x", "a/".repeat(2000)), b"x", 0o644)),
    ] {
        pex_of(&path, &[info, module, entry]);
        refused(what, &path);
    }
    for (what, info) in [
        ("no JSON", "{"),
        ("an array", "[]"),
        ("another type", r#"{"distributions":[]}"#),
        ("a merged PEX that is not there", r#"{"pex_path":"/nowhere/at/all.pex"}"#),
    ] {
        pex_of(&path, &[("PEX-INFO", info.as_bytes(), 0o644)]);
        refused(what, &path);
    }
    let bomb = vec![b' '; 20 << 20];
    pex_of(&path, &[("PEX-INFO", &bomb, 0o644)]);
    refused("a PEX-INFO of 20 MiB", &path);
    let loose = directory.path().join("loose");
    fs::create_dir(&loose).expect("creates");
    fs::write(
        loose.join("PEX-INFO"),
        r#"{"distributions":{"../../etc-1-py3-none-any.whl":"0"},"requirements":["etc"]}"#,
    )
    .expect("writes");
    refused("a distribution elsewhere", &loose);
    fs::write(loose.join("PEX-INFO"), INFO).expect("writes");
    refused("a distribution that is missing", &loose);
    fs::write(&path, "#!/bin/sh\necho no zip\n").expect("writes");
    refused("a script", &path);
}
