//! Relocated scripts run the interpreter beside them, wherever they lie and however they are called.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use cpack_layer::content::script::relocate;

use crate::python::{pythons, write_program};

const BODY: &str = "# -*- coding: latin-1 -*-
# Copyright \u{e9}
\"\"\"What it does.\"\"\"
from __future__ import annotations
import os, sys
print(sys.prefix, sys.flags.ignore_environment, *sys.argv[1:], __doc__.split(chr(10))[-1].strip(\"' \"), '\u{e9}', sep='|')
";

fn run(program: &Path) -> String {
    let output = Command::new(program).args(["a b", "$c"]).env("PYTHONIOENCODING", "utf-8").output().expect("starts");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {error}", program.display());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn scripts_find_the_interpreter_beside_them() {
    for python in pythons() {
        let directory = tempfile::tempdir().expect("a directory");
        let directory = directory.path().canonicalize().expect("exists");
        let prefix = directory.join("an 'env' with spaces");
        std::fs::create_dir_all(prefix.join("bin")).expect("creates");
        symlink(&python.program, prefix.join("bin/python")).expect("links");
        let home = python.program.parent().expect("a parent").display().to_string();
        std::fs::write(prefix.join("pyvenv.cfg"), format!("home = {home}\n")).expect("writes");

        let installed = format!("#!/opt/venv/bin/python3 -E\n{BODY}");
        // As the coding says, one byte for each character.
        let installed: Vec<u8> = installed.chars().map(|char| char as u8).collect();
        let script = relocate(&installed, &[b"/opt/venv".to_vec()]).expect("is ours");
        write_program(&prefix.join("bin/tool"), &script);
        let expected = |prefix: &Path| format!("{}|1|a b|$c|What it does.|\u{e9}\n", prefix.display());
        // -E makes it ignore PYTHONIOENCODING, but every C locale is coerced to UTF-8.
        assert_eq!(run(&prefix.join("bin/tool")), expected(&prefix), "3.{}", python.minor);

        let link = directory.join("link");
        symlink(prefix.join("bin/tool"), &link).expect("links");
        assert_eq!(run(&link), expected(&prefix));

        let moved = directory.join("moved");
        std::fs::rename(&prefix, &moved).expect("renames");
        assert_eq!(run(&moved.join("bin/tool")), expected(&moved));
    }
}
