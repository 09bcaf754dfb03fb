//! The interpreters of this machine.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cpack_layer::content::pyc::Magic;

/// An interpreter.
#[derive(Debug, Clone)]
pub(crate) struct Python {
    /// CPython 3.this.
    pub(crate) minor: u8,
    pub(crate) program: PathBuf,
}

impl Python {
    pub(crate) fn magic(&self) -> Magic {
        Magic::of_cpython(self.minor).expect("a supported version")
    }

    /// Runs a script; returns what it prints.
    pub(crate) fn run(&self, script: &str, arguments: &[&Path], input: &[u8]) -> Vec<u8> {
        let mut child = Command::new(&self.program)
            .args(["-I", "-B", "-W", "ignore", "-c", script])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut stdin = child.stdin.take().expect("piped");
        let output = std::thread::scope(|scope| {
            scope.spawn(move || stdin.write_all(input).expect("reads its input"));
            child.wait_with_output().expect("ends")
        });
        assert!(output.status.success(), "{} failed: {}", self.program.display(), output.status);
        output.stdout
    }
}

/// One interpreter of each minor version from 3.9 to 3.14.
pub(crate) fn pythons() -> Vec<Python> {
    let found = cpack_test::interpreters::interpreters().iter();
    found.map(|(minor, program)| Python { minor: *minor, program: program.clone() }).collect()
}

/// Joins chunks, each with its length before it; [`chunks`] and the scripts' `read` take them apart.
pub(crate) fn joined<T: AsRef<[u8]>>(chunks: &[T]) -> Vec<u8> {
    let with_length = |chunk: &T| [&(chunk.as_ref().len() as u32).to_le_bytes()[..], chunk.as_ref()].concat();
    chunks.iter().flat_map(with_length).collect()
}

/// Takes apart what [`joined`] or the scripts' `write` joined.
pub(crate) fn chunks(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut chunks = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let (chunk, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        chunks.push(chunk.to_vec());
        bytes = rest;
    }
    chunks
}

/// Writes a program, from another process: a descriptor that a fork of this one inherits would make it "busy".
pub(crate) fn write_program(path: &Path, text: &[u8]) {
    let script = "cat > \"$1\" && chmod 755 \"$1\"";
    let mut child =
        Command::new("sh").args(["-c", script, "sh"]).arg(path).stdin(Stdio::piped()).spawn().expect("starts");
    child.stdin.take().expect("piped").write_all(text).expect("reads its input");
    assert!(child.wait().expect("ends").success());
}
