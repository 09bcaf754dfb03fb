//! Does what an installer does to the files of a distribution after they were unpacked: makes scripts that run, and a
//! `RECORD` that tells where the files are.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use cpack_format::script::{relocatable, split_comments, split_line};

use crate::places::{entry_points, installed};

/// Finishes the files of the distribution with this wheel name, which are below `root`.
///
/// A wheel file has no console scripts yet; an installed-wheel chroot has them.
pub fn finish(root: &Path, wheel: &str, is_wheel_file: bool, minor: &str) -> io::Result<()> {
    let site = root.join(format!("lib/python{minor}/site-packages"));
    let info = dist_info(&site)?;
    let mut scripts = relocate_scripts(root)?;
    if let (true, Some(info)) = (is_wheel_file, &info) {
        let text = fs::read(info.join("entry_points.txt")).unwrap_or_default();
        for (name, target) in entry_points(&String::from_utf8_lossy(&text)) {
            let (module, function) = target.split_once(':').unwrap_or((&target, "main"));
            if is_plain(&name) && is_dotted(module.trim()) && is_dotted(function.trim()) {
                write(&root.join("bin").join(&name), &console_script(module.trim(), function.trim()), 0o555)?;
                scripts.push(name);
            }
        }
    }
    match info {
        Some(info) => rewrite_record(&info.join("RECORD"), wheel, is_wheel_file, minor, &scripts),
        None => Ok(()),
    }
}

/// The `.dist-info` directory.
fn dist_info(site: &Path) -> io::Result<Option<std::path::PathBuf>> {
    let entries = match fs::read_dir(site) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().as_bytes().ends_with(b".dist-info") {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.+ ".contains(c)) && !name.starts_with('.')
}

fn is_dotted(name: &str) -> bool {
    !name.is_empty()
        && name.split('.').all(|part| !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || c == '_'))
}

fn console_script(module: &str, function: &str) -> Vec<u8> {
    let root = function.split('.').next().unwrap_or(function);
    let body =
        format!("import sys\nfrom {module} import {root}\nif __name__ == '__main__':\n    sys.exit({function}())\n");
    relocatable(b"", &[], body.as_bytes())
}

/// Replaces a file, which may be read-only.
fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => fs::create_dir_all(path.parent().unwrap_or(path))?,
    }
    fs::write(path, bytes)?;
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Gives scripts that begin with `#!python`, as wheels have them, a first line that works. Tells which.
fn relocate_scripts(root: &Path) -> io::Result<Vec<String>> {
    let mut changed = Vec::new();
    let bin = root.join("bin");
    if !bin.is_dir() {
        return Ok(changed);
    }
    for script in fs::read_dir(bin)? {
        let script = script?;
        if !script.file_type()?.is_file() {
            continue;
        }
        let bytes = fs::read(script.path())?;
        if let Some(rest) = bytes.strip_prefix(b"#!python") {
            let (line, body) = split_line(rest);
            let (comments, body) = split_comments(body);
            write(&script.path(), &relocatable(options(line), &comments, body), 0o555)?;
            changed.push(script.file_name().to_string_lossy().into_owned());
        } else {
            // Zips need not tell that scripts can be executed.
            fs::set_permissions(script.path(), Permissions::from_mode(0o555))?;
        }
    }
    Ok(changed)
}

/// The options of the interpreter in a first line, after `#!python` (or `#!pythonw`). None if a shell would not take them as
/// they are.
fn options(line: &[u8]) -> &[u8] {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-=_.,:/ ".contains(byte);
    let options = line.iter().position(u8::is_ascii_whitespace).and_then(|at| line.get(at..)).unwrap_or_default();
    Some(options.trim_ascii()).filter(|options| options.iter().all(is_plain)).unwrap_or_default()
}

/// Names the files of a `RECORD` by where they are. Those of `scripts` were written anew: without hash, which is optional.
fn rewrite_record(record: &Path, wheel: &str, is_wheel_file: bool, minor: &str, scripts: &[String]) -> io::Result<()> {
    let text = match fs::read_to_string(record) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        text => text?,
    };
    let site = format!("lib/python{minor}/site-packages/");
    let bin = |name: &str| format!("../../../bin/{name}");
    let mut lines: Vec<String> = scripts.iter().map(|name| format!("{},,", bin(name))).collect();
    for line in text.lines() {
        let (path, rest) = match line.strip_prefix('"').and_then(|quoted| quoted.split_once('"')) {
            Some(split) => split,
            None => line.split_at(line.find(',').unwrap_or(line.len())),
        };
        let Some(target) = installed(wheel, path.as_bytes(), is_wheel_file, minor) else { continue };
        let target = String::from_utf8_lossy(&target).into_owned();
        let path = target.strip_prefix(&site).map_or_else(|| format!("../../../{target}"), str::to_owned);
        if scripts.iter().any(|name| path == bin(name)) {
            continue;
        }
        lines.push(if path.contains(',') { format!("\"{path}\"{rest}") } else { format!("{path}{rest}") });
    }
    lines.sort();
    lines.dedup();
    write(record, (lines.join("\n") + "\n").as_bytes(), 0o444)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wheel_gets_scripts_and_a_true_record() {
        let root = tempfile::tempdir().expect("a directory");
        let info = root.path().join("lib/python3.9/site-packages/a-1.dist-info");
        fs::create_dir_all(&info).expect("creates");
        fs::create_dir(root.path().join("bin")).expect("creates");
        fs::write(root.path().join("bin/old"), "#!python\nprint()\n").expect("writes");
        fs::write(info.join("entry_points.txt"), "[console_scripts]\ntool = a.b:C.f\n../evil = a:b\nodd = a;b:c\n")
            .expect("writes");
        let record = "a/b.py,sha256=x,1\na-1.data/scripts/old,sha256=y,2\n\"a/c,d.py\",,\na-1.data/data/etc/x,,\n";
        fs::write(info.join("RECORD"), record).expect("writes");
        finish(root.path(), "a-1-py3-none-any.whl", true, "3.9").expect("finishes");
        let expected = "\"a/c,d.py\",,\n../../../bin/old,,\n../../../bin/tool,,\n../../../etc/x,,\na/b.py,sha256=x,1\n";
        assert_eq!(fs::read_to_string(info.join("RECORD")).expect("reads"), expected);
        let tool = fs::read_to_string(root.path().join("bin/tool")).expect("reads");
        assert!(tool.ends_with("from a.b import C\nif __name__ == '__main__':\n    sys.exit(C.f())\n"), "{tool}");
        let names: Vec<_> = fs::read_dir(root.path().join("bin")).expect("reads").collect();
        assert_eq!(names.len(), 2, "nothing by odd names: {names:?}");
    }

    #[test]
    fn scripts_of_a_chroot_keep_coding_options_and_docstring() {
        let root = tempfile::tempdir().expect("a directory");
        fs::create_dir(root.path().join("bin")).expect("creates");
        let script = "#!python -E\n# coding: latin-1\n'''Doc.'''\nfrom __future__ import annotations\n";
        fs::write(root.path().join("bin/tool"), script).expect("writes");
        finish(root.path(), "a-1-py3-none-any.whl", false, "3.9").expect("finishes");
        let tool = fs::read_to_string(root.path().join("bin/tool")).expect("reads");
        let lines: Vec<&str> = tool.lines().collect();
        assert_eq!(lines[..2], ["#!/bin/sh", "# coding: latin-1"]);
        assert!(lines[2].starts_with("\x0c# ") && lines[2].ends_with("'python' -E \"$0\" \"$@\""), "{tool}");
        assert_eq!(lines[3..], ["'''Doc.'''", "from __future__ import annotations"]);
    }
}
