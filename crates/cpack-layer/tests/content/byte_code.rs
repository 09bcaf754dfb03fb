//! Byte-code of real interpreters is rewritten without a change of meaning, and has one form.

use std::path::Path;

use cpack_layer::content::pyc::{self, Source};

use crate::python::{chunks, joined, pythons};

/// What the scripts share: chunks over pipes, and the sources, some awkward ones and part of the standard library.
const COMMON: &str = include_str!("common.py");

/// Compiles every source, in a process that holds much else (`rich`) or next to nothing.
const COMPILE: &str = include_str!("compile_all.py");

/// Compares code objects pairwise.
const COMPARE: &str = include_str!("compare.py");

const PATH: &str = "lib/python3/site-packages/pkg/mod.py";

fn script(script: &str) -> String {
    format!("{COMMON}\n{script}")
}

#[test]
fn rewritten_code_means_the_same_and_has_one_form() {
    for python in pythons() {
        let plain = chunks(&python.run(&script(COMPILE), &[Path::new("plain"), Path::new("/home/a")], b""));
        let rich = chunks(&python.run(&script(COMPILE), &[Path::new("rich"), Path::new("/mnt/other/b")], b""));
        assert!(plain.len() > 40, "too few sources: {}", plain.len());
        assert_eq!(plain.len(), rich.len());
        assert_ne!(plain, rich, "the two processes were meant to write different bytes");
        let rewrite = |code: &Vec<u8>| {
            let pyc = pyc::unchecked(python.magic(), b"", code, PATH.as_bytes()).expect("rewrites");
            pyc[16..].to_vec()
        };
        let canonical: Vec<_> = plain.iter().map(rewrite).collect();
        for (index, (one, other)) in canonical.iter().zip(rich.iter().map(rewrite)).enumerate() {
            assert!(*one == other, "3.{}: source {index} has two forms", python.minor);
            assert!(*one == rewrite(one), "3.{}: source {index} changes when rewritten again", python.minor);
        }
        let answer = python.run(&script(COMPARE), &[Path::new(PATH)], &[joined(&plain), joined(&canonical)].concat());
        assert_eq!(String::from_utf8_lossy(&answer), format!("{} equal\n", plain.len()));
    }
}

#[test]
fn interpreters_load_what_is_written_and_agree_on_what_is_valid() {
    for python in pythons() {
        let directory = tempfile::tempdir().expect("a directory");
        let source = directory.path().join("mod.py");
        let text = "def f():\n    return [__file__, f.__code__.co_filename]\n";
        std::fs::write(&source, text).expect("writes");
        // The interpreter's own file is valid, until the source changes.
        let compile = "import sys, py_compile\n\
            modes = [py_compile.PycInvalidationMode.TIMESTAMP, py_compile.PycInvalidationMode.CHECKED_HASH,\n\
                     py_compile.PycInvalidationMode.UNCHECKED_HASH]\n\
            for mode in modes: print(py_compile.compile(sys.argv[1], cfile=sys.argv[1] + mode.name, invalidation_mode=mode))";
        let names = String::from_utf8(python.run(compile, &[&source], b"")).expect("utf-8");
        let modified = std::os::unix::fs::MetadataExt::mtime(&source.metadata().expect("stat"));
        let mut written = Vec::new();
        assert_eq!(names.lines().count(), 3);
        for name in names.lines() {
            let pyc = std::fs::read(name).expect("reads");
            let now = Source { bytes: text.as_bytes(), modified };
            let code = pyc::valid_code(&pyc, python.magic(), now).expect("valid");
            written.push(pyc::unchecked(python.magic(), text.as_bytes(), code, b"lib/mod.py").expect("rewrites"));
            let changed = Source { bytes: b"def g(): pass\n", modified: modified + 1 };
            assert_eq!(pyc::valid_code(&pyc, python.magic(), changed), Err(pyc::PycError::Stale));
        }
        assert!(written.iter().all(|pyc| *pyc == written[0]), "one form whatever the file was");

        // The file that is shipped is loaded, even when the source has another time; the code's path is put right.
        std::fs::write(&source, "raise SystemExit('the source was read')").expect("writes");
        let place =
            python.run("import sys, importlib.util as u; print(end=u.cache_from_source(sys.argv[1]))", &[&source], b"");
        let place = directory.path().join(String::from_utf8(place).expect("utf-8"));
        std::fs::create_dir_all(place.parent().expect("a parent")).expect("creates");
        std::fs::write(&place, &written[0]).expect("writes");
        let load = "import sys; sys.path.insert(0, sys.argv[1]); import mod; print(*mod.f(), sep='\\n')";
        let answer = String::from_utf8(python.run(load, &[directory.path()], b"")).expect("utf-8");
        assert_eq!(answer, format!("{0}\n{0}\n", source.display()), "3.{}", python.minor);
        assert_eq!(
            written[0][..16],
            [&python.magic().0[..], &[1, 0, 0, 0], &python.magic().source_hash(text.as_bytes())].concat()
        );
        let hash = python.run("import sys, _imp, importlib.util as u; sys.stdout.buffer.write(_imp.source_hash(int.from_bytes(u.MAGIC_NUMBER, 'little'), sys.stdin.buffer.read()))", &[], text.as_bytes());
        assert_eq!(hash, python.magic().source_hash(text.as_bytes()));
    }
}
