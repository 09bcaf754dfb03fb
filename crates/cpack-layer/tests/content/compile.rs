//! Sources are compiled by the environment's interpreter, to the same bytes as its own `.pyc` files give.

use std::path::Path;
use std::thread;

use cpack_layer::content::compile::{CompileError, Compiled, Compilers};
use cpack_layer::content::pyc::{self, Magic, Source};

use crate::python::{chunks, pythons, write_program};

const SOURCES: &str = "for name, source in sources(): write(source)";

/// Writes each chunk as a module and compiles it as pip does, in a process of its own, with another hash seed each time.
const COMPILE_ALL: &str = "
import compileall
for index, source in enumerate(read()):
    with open(os.path.join(sys.argv[1], f'm{index}.py'), 'wb') as file: file.write(source)
compileall.compile_dir(sys.argv[1], quiet=2, force=True)
import importlib.util as u
for index in range(index + 1):
    place = u.cache_from_source(os.path.join(sys.argv[1], f'm{index}.py'))
    write(open(place, 'rb').read() if os.path.exists(place) else b'')
";

fn script(script: &str) -> String {
    format!("{}\n{script}", include_str!("common.py"))
}

#[test]
fn compiling_gives_the_bytes_that_rewriting_gives() {
    for python in pythons() {
        let sources = python.run(&script(SOURCES), &[], b"");
        let directory = tempfile::tempdir().expect("a directory");
        let installed = chunks(&python.run(&script(COMPILE_ALL), &[directory.path()], &sources));
        let compilers = Compilers::new(&python.program, python.magic(), 2);
        let sources = chunks(&sources);
        let work: Vec<_> = sources.iter().zip(&installed).enumerate().collect();
        // More threads than workers.
        thread::scope(|scope| {
            for part in work.chunks(work.len() / 5 + 1) {
                let (compilers, python, directory) = (&compilers, &python, &directory);
                scope.spawn(move || {
                    for (index, (source, installed)) in part {
                        let modified = std::fs::metadata(directory.path().join(format!("m{index}.py"))).expect("stat");
                        let modified = std::os::unix::fs::MetadataExt::mtime(&modified);
                        let compiled = match compilers.compile(source).expect("compiles") {
                            Compiled::Code(code) => code,
                            Compiled::Refused(why) => {
                                assert!(installed.is_empty(), "3.{}: {index} was refused: {why}", python.minor);
                                continue;
                            }
                        };
                        let valid = pyc::valid_code(installed, python.magic(), Source { bytes: source, modified });
                        let rewrite =
                            |code| pyc::unchecked(python.magic(), source, code, b"lib/m.py").expect("rewrites");
                        let same = rewrite(valid.expect("valid")) == rewrite(&compiled);
                        assert!(same, "3.{}: {index} differs", python.minor);
                    }
                });
            }
        });
        let other = Compilers::new(&python.program, Magic(*b"??\r\n"), 2).compile(b"").expect_err("is another");
        assert!(matches!(other, CompileError::OtherVersion { .. }), "{other}");
    }
}

#[test]
fn sources_that_do_not_compile_are_refused_one_by_one() {
    for python in pythons() {
        let compilers = Compilers::new(&python.program, python.magic(), 1);
        for (source, why) in [
            (&b"x = 1\nprint 'python 2'\n"[..], "(line 2)"),
            (b"# coding: no-such-codec\n", "no-such-codec"),
            (b"s = '\xff'\n", "utf-8"),
            (b"x = '\0'\n", "null bytes"),
            (b"def f(:\n", "invalid syntax (line 1)"),
        ] {
            let Compiled::Refused(found) = compilers.compile(source).expect("answers") else {
                panic!("3.{}", python.minor)
            };
            let lower = found.to_lowercase();
            assert!(lower.contains(why), "3.{}: {found}", python.minor);
            // A warning is neither a refusal nor heard of.
            assert!(matches!(compilers.compile(b"x is 1; '\\d'\n"), Ok(Compiled::Code(_))));
        }
        let deep = [&b"x = "[..], &b"-".repeat(200_000), b"1\n"].concat();
        assert!(!matches!(compilers.compile(&deep), Ok(Compiled::Code(_))), "3.{}", python.minor);
        assert!(matches!(compilers.compile(b"x = 1\n"), Ok(Compiled::Code(_))), "the next one is compiled");
    }
}

#[test]
fn worker_that_dies_is_told_and_replaced() {
    let directory = tempfile::tempdir().expect("a directory");
    let python = pythons().remove(0);
    let program = directory.path().join("python");
    let count = directory.path().join("starts");
    // The first start dies at its first source, later ones are real.
    let text = format!(
        "#!/bin/sh\nif [ -e '{count}' ]; then exec '{python}' \"$@\"; fi\n: > '{count}'\n\
         printf '{magic}'; head -c 4 > /dev/null; echo out of luck >&2; kill -9 $$\n",
        count = count.display(),
        python = python.program.display(),
        magic = python.magic().0.map(|byte| format!("\\{byte:03o}")).concat(),
    );
    write_program(&program, text.as_bytes());
    let compilers = Compilers::new(&program, python.magic(), 1);
    let error = compilers.compile(b"x = 1\n").expect_err("dies");
    let text = error.to_string();
    assert!(matches!(error, CompileError::Died { .. }), "{text}");
    assert!(text.contains("signal: 9") && text.contains("out of luck"), "{text}");
    assert!(matches!(compilers.compile(b"x = 1\n"), Ok(Compiled::Code(_))));

    let missing = Compilers::new("/nonexistent/python", python.magic(), 1);
    assert!(matches!(missing.compile(b""), Err(CompileError::Start { .. })));
    let silent = Compilers::new(Path::new("/bin/false"), python.magic(), 1);
    assert!(matches!(silent.compile(b""), Err(CompileError::Died { .. })));
    assert!(matches!(silent.compile(b""), Err(CompileError::Died { .. })), "the place of the dead is free again");
}
