//! Environments with the same content give the same files, which tell the truth and work.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use cluster_pack::content::compile::Compilers;
use cluster_pack::content::plan::Installed;
use cluster_pack::content::record;
use cluster_pack::content::transform::{About, ByteCode, Remark, Transformed, Transformer};
use cluster_pack::layer::Body;
use cpack_artifact::SafePath;
use cpack_artifact::content::Kind;

use crate::python::{Python, pythons};

const MODULE: &str =
    "def main():\n    import sys\n    print('demo', *sys.argv[1:], sys.prefix, main.__code__.co_filename, sep='|')\n";

fn wheel() -> Vec<u8> {
    let files = [
        ("demo/__init__.py", MODULE),
        ("demo/sub/sets.py", "X = {'a', 'b'}\ndef f(x): return x in {'p', 'q', 'r'} or x is X or ' ' in x\n"),
        ("demo/sub/__init__.py", ""),
        ("demo/old.py", "print 'python 2'\n"),
        ("demo/data, \"quoted\".txt", "data"),
        (
            "demo-1.0.data/scripts/tool",
            "#!python -E\n'''Doc.'''\nfrom __future__ import annotations\nimport demo; demo.main()\n",
        ),
        ("demo-1.0.data/scripts/shell", "#!/bin/sh\necho shell\n"),
        ("demo-1.0.data/data/share/demo/notes", "notes"),
        ("demo-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n"),
        ("demo-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"),
        ("demo-1.0.dist-info/entry_points.txt", "[console_scripts]\ndemo = demo:main\n"),
    ];
    let row = |(path, text): &(&str, &str)| {
        format!("\"{}\",{},{}\n", path.replace('"', "\"\""), record::hash(text.as_bytes()), text.len())
    };
    let list = files.iter().map(row).collect::<String>() + "demo-1.0.dist-info/RECORD,,\n";
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (path, text) in files.into_iter().chain([("demo-1.0.dist-info/RECORD", list.as_str())]) {
        let mode = if path.contains("/scripts/") { 0o755 } else { 0o644 };
        zip.start_file(path, zip::write::SimpleFileOptions::default().unix_permissions(mode)).expect("starts");
        zip.write_all(text.as_bytes()).expect("writes");
    }
    zip.finish().expect("finishes").into_inner()
}

/// An environment in `prefix`, as `python -m venv` makes it.
fn make_prefix(python: &Python, prefix: &Path) -> PathBuf {
    let modules = prefix.join(format!("lib/python3.{}/site-packages", python.minor));
    fs::create_dir_all(prefix.join("bin")).expect("creates");
    fs::create_dir_all(&modules).expect("creates");
    symlink(&python.program, prefix.join("bin/python")).expect("links");
    let home = python.program.parent().expect("a parent");
    fs::write(prefix.join("pyvenv.cfg"), format!("home = {}\n", home.display())).expect("writes");
    modules
}

/// Installs the wheel as a user's pip does. Byte-code is compiled with `--compile`, not with `--no-compile`.
fn install(python: &Python, wheel: &Path, prefix: &Path, compile: &str) {
    make_prefix(python, prefix);
    let status = Command::new(&python.program)
        .args(["-I", "-m", "pip", "--python"])
        .arg(prefix.join("bin/python"))
        .args(["--disable-pip-version-check", "install", "-q", "--no-index", "--no-deps", compile])
        .arg(wheel)
        .status()
        .expect("starts");
    assert!(status.success(), "{} -m pip cannot install: this test needs pip 22.3 or later", python.program.display());
}

/// The files that the distribution's RECORD lists, in no particular order.
fn installed(python: &Python, prefix: &Path) -> Vec<Installed> {
    let base = SafePath::new(format!("lib/python3.{}/site-packages", python.minor).as_bytes()).expect("safe");
    let list = fs::read(prefix.join(&base).join("demo-1.0.dist-info/RECORD")).expect("reads");
    let file = |row: record::Row| {
        let path = record::locate(&row.path, Some(&base), &[]).expect("inside");
        let place = prefix.join(&path);
        let stat = place.metadata().expect("exists");
        let kind = if stat.mode() & 0o100 == 0 { Kind::File } else { Kind::Executable };
        Installed { path, place, kind, size: stat.size(), modified: stat.mtime(), target: Vec::new(), suspect: false }
    };
    record::parse(&list).expect("parses").into_iter().rev().map(file).collect()
}

fn transform(python: &Python, prefix: &Path, files: &[Installed]) -> Transformed {
    let compilers = Compilers::new(prefix.join("bin/python"), python.magic(), 2);
    let safe = |text: String| SafePath::new(text.as_bytes()).expect("safe");
    let modules = Some(safe(format!("lib/python3.{}", python.minor)));
    let tag = format!("cpython-3{}", python.minor);
    let byte_code = Some(ByteCode { compilers: &compilers, tag: &tag, modules });
    let transformer = Transformer { prefixes: vec![prefix.as_os_str().as_encoded_bytes().to_vec()], byte_code };
    let info = safe(format!("lib/python3.{}/site-packages/demo-1.0.dist-info", python.minor));
    transformer.transform(Some(&info), files).expect("transforms")
}

fn contents(transformed: &Transformed) -> BTreeMap<String, (Kind, Vec<u8>)> {
    let content = |body: &Body| match body {
        Body::Bytes(bytes) => bytes.clone(),
        Body::File { path, .. } => fs::read(path).expect("reads"),
        Body::Made { make, .. } => make().expect("makes").expect("an entry"),
    };
    transformed.entries.iter().map(|entry| (entry.path.to_string(), (entry.kind, content(&entry.body)))).collect()
}

fn remarks(transformed: &Transformed) -> Vec<(String, &About)> {
    let name = |remark: &Remark| remark.path.to_string().rsplit('/').next().unwrap_or_default().to_owned();
    transformed.remarks.iter().map(|remark| (name(remark), &remark.about)).collect()
}

#[test]
fn the_same_content_gives_the_same_files_and_they_work() {
    for python in pythons() {
        let directory = tempfile::tempdir().expect("a directory");
        let directory = directory.path().canonicalize().expect("exists");
        let wheels = [directory.join("one"), directory.join("other place")].map(|folder| {
            fs::create_dir(&folder).expect("creates");
            let path = folder.join("demo-1.0-py3-none-any.whl");
            fs::write(&path, wheel()).expect("writes");
            path
        });
        let (plain, spaced) = (directory.join("plain"), directory.join("with spaces/env"));
        install(&python, &wheels[0], &plain, "--compile");
        install(&python, &wheels[1], &spaced, "--no-compile");

        let one = transform(&python, &plain, &installed(&python, &plain));
        let other = transform(&python, &spaced, &installed(&python, &spaced));
        assert_eq!((one.reused, one.compiled, other.reused, other.compiled), (3, 0, 0, 3), "3.{}", python.minor);
        let (files, others) = (contents(&one), contents(&other));
        for (path, file) in &files {
            assert!(Some(file) == others.get(path), "3.{}: {path} differs", python.minor);
        }
        assert_eq!(files.len(), others.len());
        for transformed in [&one, &other] {
            let remarks = remarks(transformed);
            assert!(matches!(&remarks[..], [(name, About::NoByteCode(_))] if name == "old.py"), "{remarks:?}");
        }
        let old = directory.as_os_str().as_encoded_bytes();
        for (path, (_, bytes)) in &files {
            assert!(!bytes.windows(old.len()).any(|window| window == old), "{path} tells where it was");
        }
        run_from(&python, &directory.join("at last"), &files);
    }
}

/// Puts the files in place, with times of their own, and uses them.
fn run_from(python: &Python, prefix: &Path, files: &BTreeMap<String, (Kind, Vec<u8>)>) {
    let modules = make_prefix(python, prefix);
    for (path, (kind, bytes)) in files {
        let path = prefix.join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("creates");
        fs::write(&path, bytes).expect("writes");
        fs::set_permissions(&path, fs::Permissions::from_mode(kind.mode() & 0o777)).expect("sets the mode");
    }
    // The list is true, and nothing is missing from it.
    let list = fs::read(modules.join("demo-1.0.dist-info/RECORD")).expect("reads");
    let rows = record::parse(&list).expect("parses");
    assert_eq!(rows.len(), files.len());
    assert!(rows.is_sorted_by(|a, b| a.path < b.path));
    for row in rows {
        let bytes = fs::read(modules.join(String::from_utf8(row.path.clone()).expect("utf-8"))).expect("exists");
        let unhashed = row.path.ends_with(b".pyc") || row.path.ends_with(b"/RECORD");
        assert_eq!((row.hash.is_none(), row.size.is_none()), (unhashed, unhashed));
        assert!(row.hash.is_none_or(|hash| record::matches(&hash, &bytes) == Some(true)));
        assert!(row.size.is_none_or(|size| size == bytes.len() as u64));
    }
    let run = |program: &str, arguments: &[&str]| {
        let output =
            Command::new("sh").args(["-c", "exec \"$@\"", "sh"]).arg(prefix.join(program)).args(arguments).output();
        let output = output.expect("starts");
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("utf-8")
    };
    let expected = format!("demo|x|{}|{}\n", prefix.display(), modules.join("demo/__init__.py").display());
    assert_eq!(run("bin/demo", &["x"]), expected);
    assert_eq!(run("bin/tool", &["x"]), expected);
    assert_eq!(run("bin/shell", &[]), "shell\n");
    // Byte-code is loaded, although the sources are younger: with others in their place, nothing changes.
    fs::write(modules.join("demo/sub/sets.py"), "raise SystemExit('compiled')").expect("writes");
    assert_eq!(run("bin/python", &["-c", "import demo.sub.sets as s; print(s.f('q'))"]), "True\n");
}

#[test]
fn changed_and_damaged_files_are_told() {
    let python = pythons().remove(0);
    let directory = tempfile::tempdir().expect("a directory");
    let prefix = directory.path().canonicalize().expect("exists").join("env");
    let path = directory.path().join("demo-1.0-py3-none-any.whl");
    fs::write(&path, wheel()).expect("writes");
    install(&python, &path, &prefix, "--compile");
    let modules = prefix.join(format!("lib/python3.{}/site-packages", python.minor));
    let longer = format!("{MODULE}\nEDITED = True\n");
    fs::write(modules.join("demo/__init__.py"), &longer).expect("writes");
    fs::write(modules.join("demo-1.0.dist-info/METADATA"), "Metadata-Version: 2.1\nName: demo\nVersion: 1.1\n")
        .expect("writes");
    fs::write(modules.join("demo-1.0.dist-info/direct_url.json"), "{").expect("writes");
    fs::write(modules.join(format!("demo/sub/__pycache__/sets.cpython-3{}.pyc", python.minor)), "damaged")
        .expect("writes");
    let mut files = installed(&python, &prefix);
    // Of the same length as before: only discovery can suspect it.
    files.iter_mut().for_each(|file| file.suspect = file.path.as_bytes().ends_with(b"METADATA"));
    let transformed = transform(&python, &prefix, &files);
    let remarks = remarks(&transformed);
    let names: Vec<_> = remarks.iter().map(|(name, about)| (name.as_str(), std::mem::discriminant(*about))).collect();
    let (modified, left_out, none) = (About::Modified, About::LeftOut(String::new()), About::NoByteCode(String::new()));
    let expected =
        [("METADATA", &modified), ("direct_url.json", &left_out), ("__init__.py", &modified), ("old.py", &none)];
    assert_eq!(names, expected.map(|(name, about)| (name, std::mem::discriminant(about))), "{remarks:?}");
    assert_eq!((transformed.reused, transformed.compiled), (1, 2));
    let contents = contents(&transformed);
    let list = &contents[&format!("lib/python3.{}/site-packages/demo-1.0.dist-info/RECORD", python.minor)].1;
    let list = String::from_utf8(list.clone()).expect("utf-8");
    assert!(
        list.contains(&format!("demo/__init__.py,{},{}\n", record::hash(longer.as_bytes()), longer.len())),
        "{list}"
    );
    assert!(!list.contains("direct_url.json"), "{list}");
}

#[test]
fn record_lists_what_another_distribution_has_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let site = directory.path().join("lib/python3.11/site-packages");
    let file = |name: &str, text: &str, suspect: bool| {
        let place = site.join(name);
        fs::create_dir_all(place.parent().expect("a parent")).expect("creates");
        fs::write(&place, text).expect("writes");
        let path = SafePath::new(format!("lib/python3.11/site-packages/{name}").as_bytes()).expect("safe");
        let size = text.len() as u64;
        Installed { path, place, kind: Kind::File, size, modified: 0, target: Vec::new(), suspect }
    };
    let same = record::hash(b"same");
    let rows = format!("ns/__init__.py,{same},4\nns/other.py,{same},4\nns/own.py,,\nd-1.dist-info/RECORD,,\n");
    let files = [file("ns/own.py", "own", false), file("d-1.dist-info/RECORD", &rows, false)];
    let shared = [file("ns/__init__.py", "same", true), file("ns/other.py", "changed", true)];
    let info = SafePath::new(b"lib/python3.11/site-packages/d-1.dist-info").expect("safe");
    let transformer = Transformer { prefixes: Vec::new(), byte_code: None };
    let made = transformer.transform_beside(Some(&info), &files, &shared).expect("transforms");
    let expected = format!(
        "d-1.dist-info/RECORD,,\nns/__init__.py,{same},4\nns/other.py,{},7\nns/own.py,,\n",
        record::hash(b"changed")
    );
    let made = contents(&made);
    assert_eq!(made.len(), 2, "what others have is not packed twice");
    let (_, record) = &made["lib/python3.11/site-packages/d-1.dist-info/RECORD"];
    assert_eq!(String::from_utf8_lossy(record), expected);

    // In an overlay metadata is at the top.
    let mut files = files;
    for file in &mut files {
        let short = file.path.to_string().replace("lib/python3.11/site-packages/", "");
        file.path = SafePath::new(short.as_bytes()).expect("safe");
    }
    let info = SafePath::new(b"d-1.dist-info").expect("safe");
    let made = contents(&transformer.transform(Some(&info), &files).expect("transforms"));
    assert_eq!(String::from_utf8_lossy(&made["d-1.dist-info/RECORD"].1), "d-1.dist-info/RECORD,,\nns/own.py,,\n");
}
