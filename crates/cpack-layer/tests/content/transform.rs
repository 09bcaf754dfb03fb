//! Environments with the same content give the same files, which tell the truth and work.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use cpack_discover::{DiscoverOptions, Distribution, Environment, FileKind, FileStat, Suspect, discover, record};
use cpack_format::SafePath;
use cpack_format::content::Kind;
use cpack_layer::PackError;
use cpack_layer::archive::{Body, Entry};
use cpack_layer::content::compile::Compilers;
use cpack_layer::content::facts::Facts;
use cpack_layer::content::transform::{LayerFiles, Transformer};

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

/// The environment in `prefix`, in which the distribution is installed.
fn discovered(prefix: &Path) -> Environment {
    let cache = tempfile::tempdir().expect("a directory");
    discover(prefix, &DiscoverOptions { whole_conda: false, cache_dir: cache.path().into(), python: None })
        .expect("discovers")
}

fn demo(environment: &Environment) -> &Distribution {
    environment.distribution("demo").expect("is installed")
}

/// The entries of the distribution, with `compilers` in place of the interpreter's.
fn transform(environment: &Environment, compilers: &Compilers) -> Result<(Vec<Entry>, Facts), PackError> {
    let demo = demo(environment);
    // The order of files does not matter.
    let files = demo.files.iter().rev().cloned().collect::<Vec<_>>().into();
    let layer =
        LayerFiles { files, info: Some(Cow::Borrowed(&demo.info)), suspects: &demo.suspects, ..LayerFiles::default() };
    Transformer::new(environment, compilers).transform(&layer)
}

fn contents(entries: &[Entry]) -> BTreeMap<String, (Kind, Vec<u8>)> {
    let content = |body: &Body| match body {
        Body::Bytes(bytes) => bytes.clone(),
        Body::File { path, .. } => fs::read(path).expect("reads"),
        Body::Made { make, .. } => make().expect("makes").expect("an entry"),
    };
    entries.iter().map(|entry| (entry.path.to_string(), (entry.kind, content(&entry.body)))).collect()
}

/// A path that gets no byte-code.
fn gone() -> SafePath {
    SafePath::new(b"share/old.txt").expect("safe")
}

/// Compilers that fail when they are asked.
fn no_compilers(python: &Python) -> Compilers {
    Compilers::new("/nonexistent/python", python.magic(), 1)
}

#[test]
fn the_same_content_gives_the_same_files_and_they_work() {
    std::thread::scope(|scope| {
        for python in pythons() {
            scope.spawn(move || check_the_same(&python));
        }
    });
}

fn check_the_same(python: &Python) {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path().canonicalize().expect("exists");
    let wheels = [directory.join("one"), directory.join("other place")].map(|folder| {
        fs::create_dir(&folder).expect("creates");
        let path = folder.join("demo-1.0-py3-none-any.whl");
        fs::write(&path, wheel()).expect("writes");
        path
    });
    let (plain, spaced) = (directory.join("plain"), directory.join("with spaces/env"));
    install(python, &wheels[0], &plain, "--compile");
    install(python, &wheels[1], &spaced, "--no-compile");

    let environments = [&plain, &spaced].map(|prefix| discovered(prefix));
    let [one, other] = environments.each_ref().map(|environment| {
        let (entries, facts) = transform(environment, &Compilers::of(&environment.python)).expect("transforms");
        assert!(matches!(&facts.not_compiled[..], [path] if path.ends_with("/demo/old.py")), "{facts:?}");
        assert_eq!((&facts.modified, &facts.left_out), (&vec![], &vec![]), "3.{}", python.minor);
        contents(&entries)
    });
    for (path, file) in &one {
        assert!(Some(file) == other.get(path), "3.{}: {path} differs", python.minor);
    }
    assert_eq!(one.len(), other.len());
    let files = one;
    // What is valid is not compiled again: without the source that no interpreter takes, none is asked.
    let [compiled, bare] = environments.map(|mut environment| {
        let all = environment.distributions.iter_mut().flat_map(|distribution| &mut distribution.files);
        all.filter(|file| file.path.as_bytes().ends_with(b"/old.py")).for_each(|file| file.path = gone());
        transform(&environment, &no_compilers(python)).map(|(entries, _)| entries.len())
    });
    assert_eq!(compiled.expect("reuses"), files.len(), "3.{}", python.minor);
    assert!(matches!(bare, Err(PackError::Compile { .. })), "3.{}: {bare:?}", python.minor);
    let old = directory.as_os_str().as_encoded_bytes();
    for (path, (_, bytes)) in &files {
        assert!(!bytes.windows(old.len()).any(|window| window == old), "{path} tells where it was");
    }
    run_from(python, &directory.join("at last"), &files);
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
    fs::write(prefix.join("bin/tool"), "#!/old/venv/bin/python3 -E\nimport demo\n").expect("writes");
    fs::write(modules.join(format!("demo/sub/__pycache__/sets.cpython-3{}.pyc", python.minor)), "damaged")
        .expect("writes");
    let mut environment = discovered(&prefix);
    // Of the same length and second as before: only discovery's suspicion tells.
    let info = demo(&environment).info.clone();
    let path = SafePath::new(format!("{info}/METADATA").as_bytes()).expect("safe");
    environment.distributions.iter_mut().for_each(|distribution| {
        distribution.suspects = vec![Suspect { path: path.clone(), hash: String::new(), certain: false }];
    });
    let (entries, facts) = transform(&environment, &Compilers::of(&environment.python)).expect("transforms");
    let names = |paths: &[String]| {
        let name = |path: &String| path.rsplit('/').next().unwrap_or_default().to_owned();
        paths.iter().map(name).collect::<Vec<_>>()
    };
    assert_eq!(names(&facts.modified), ["METADATA", "__init__.py"]);
    assert_eq!(names(&facts.not_compiled), ["old.py"]);
    assert_eq!(facts.strangers, ["bin/tool (#!/old/venv/bin/python3)"]);
    assert!(matches!(&facts.left_out[..], [line] if line.contains("/direct_url.json: ")), "{facts:?}");
    let contents = contents(&entries);
    let pyc =
        &contents[&format!("lib/python3.{0}/site-packages/demo/sub/__pycache__/sets.cpython-3{0}.pyc", python.minor)].1;
    assert!(pyc.starts_with(&python.magic().0) && pyc.len() > 100, "the damaged byte-code is made again");
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
    let python = pythons().remove(0);
    let directory = tempfile::tempdir().expect("a directory");
    let prefix = directory.path().canonicalize().expect("exists").join("env");
    let modules = make_prefix(&python, &prefix);
    let site = format!("lib/python3.{}/site-packages", python.minor);
    let file = |name: &str, text: &str| {
        let place = modules.join(name);
        fs::create_dir_all(place.parent().expect("a parent")).expect("creates");
        fs::write(&place, text).expect("writes");
        let path = SafePath::new(format!("{site}/{name}").as_bytes()).expect("safe");
        let (source, size) = (Some(place.into()), text.len() as u64);
        FileStat { path, source, size, mtime_ns: 0, ctime_ns: 0, ino: 0, kind: FileKind::File }
    };
    let same = record::hash(b"same");
    let rows = format!("ns/a.txt,{same},4\nns/other.txt,{same},4\nns/own.txt,,\nd-1.dist-info/RECORD,,\n");
    let mut files = vec![file("ns/own.txt", "own"), file("d-1.dist-info/RECORD", &rows)];
    let shared = vec![file("ns/a.txt", "same"), file("ns/other.txt", "changed")];
    let environment = discovered(&prefix);
    let compilers = no_compilers(&python);
    let transformer = Transformer::new(&environment, &compilers);
    let info = |path: &str| Some(Cow::Owned(SafePath::new(path.as_bytes()).expect("safe")));
    let layer = LayerFiles {
        files: files.clone().into(),
        info: info(&format!("{site}/d-1.dist-info")),
        shared,
        ..LayerFiles::default()
    };
    let made = contents(&transformer.transform(&layer).expect("transforms").0);
    let expected = format!(
        "d-1.dist-info/RECORD,,\nns/a.txt,{same},4\nns/other.txt,{},7\nns/own.txt,,\n",
        record::hash(b"changed")
    );
    assert_eq!(made.len(), 2, "what others have is not packed twice");
    let (_, record) = &made[&format!("{site}/d-1.dist-info/RECORD")];
    assert_eq!(String::from_utf8_lossy(record), expected);

    // In an overlay metadata is at the top.
    for file in &mut files {
        let short = file.path.to_string().replace(&format!("{site}/"), "");
        file.path = SafePath::new(short.as_bytes()).expect("safe");
    }
    let layer =
        LayerFiles { files: files.into(), info: info("d-1.dist-info"), is_overlay: true, ..LayerFiles::default() };
    let made = contents(&transformer.transform(&layer).expect("transforms").0);
    assert_eq!(String::from_utf8_lossy(&made["d-1.dist-info/RECORD"].1), "d-1.dist-info/RECORD,,\nns/own.txt,,\n");
}
