//! The arrows of the design: `suite -> packer, bootstrap -> artifact`, and inside a crate `cli -> use case -> the rest`.

#![expect(clippy::expect_used, reason = "tests report by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What each package may depend on within the workspace.
const ARROWS: [(&str, &[&str]); 5] = [
    ("crc", &[]),
    ("cpack-artifact", &[]),
    ("cluster-pack", &["cpack-artifact"]),
    ("cpack-boot", &["cpack-artifact"]),
    ("cpack-suite", &["cpack-artifact", "cluster-pack", "cpack-boot"]),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Dependencies of each package on others of the workspace, of every kind.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages").clone();
    let name = |value: &serde_json::Value| value["name"].as_str().expect("a name").to_owned();
    let members: BTreeSet<String> = packages.iter().map(name).collect();
    packages
        .iter()
        .map(|package| {
            let all = package["dependencies"].as_array().expect("dependencies").iter().map(name);
            (name(package), all.filter(|d| members.contains(d)).collect())
        })
        .collect()
}

#[test]
fn packages_depend_as_designed() {
    let found = dependencies();
    assert_eq!(
        found.keys().map(String::as_str).collect::<BTreeSet<_>>(),
        ARROWS.iter().map(|(name, _)| *name).collect()
    );
    for (package, allowed) in ARROWS {
        for dependency in &found[package] {
            assert!(allowed.contains(&dependency.as_str()), "{package} must not depend on {dependency}");
        }
    }
    // A guard that compares nothing would pass, too.
    assert!(found["cluster-pack"].contains("cpack-artifact") && found["cpack-boot"].contains("cpack-artifact"));
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Lines of code, without comments, of the files below `directory` for which `keep` holds.
fn lines(directory: &str, keep: impl Fn(&str) -> bool) -> Vec<(String, String)> {
    let base = root().join(directory);
    let mut files = Vec::new();
    sources(&base, &mut files);
    assert!(files.len() > 3, "{directory} has hardly any sources");
    let relative = |path: &PathBuf| path.strip_prefix(&base).expect("below").to_string_lossy().into_owned();
    let kept = files.iter().filter(|path| keep(&relative(path)));
    kept.flat_map(|path| {
        let text = fs::read_to_string(path).expect("reads");
        let code: Vec<_> = text.lines().filter(|l| !l.trim_start().starts_with("//")).map(str::to_owned).collect();
        code.into_iter().map(move |line| (relative(path), line))
    })
    .collect()
}

#[test]
fn nothing_but_main_knows_the_command_line() {
    for package in ["packer", "bootstrap"] {
        let inner = |file: &str| !file.starts_with("cli") && !file.starts_with("main.rs");
        for (file, line) in lines(&format!("{package}/src"), inner) {
            assert!(!line.contains("crate::cli"), "{package}/src/{file} looks into the command line: {line}");
        }
    }
}

#[test]
fn what_both_agree_on_has_no_habits() {
    // Stores work, `pex` reads PEX files and finishes trees made of them, `events.rs` appends to the file that its caller
    // names, `fault.rs` is there for tests alone.
    let works =
        |file: &str| file.starts_with("store") || file.starts_with("pex/") || ["events.rs", "fault.rs"].contains(&file);
    let pure = |file: &str| !works(file);
    for (file, line) in lines("artifact/src", pure) {
        for habit in ["println!", "eprintln!", "env::var", "thread::spawn", "std::process", "std::fs", "File::open"] {
            assert!(!line.contains(habit), "artifact/src/{file} is pure, but has {habit}: {line}");
        }
    }
}

#[test]
fn files_stay_readable() {
    for package in ["artifact", "packer", "bootstrap"] {
        let mut files = Vec::new();
        sources(&root().join(package).join("src"), &mut files);
        for path in files.iter().filter(|p| !p.to_string_lossy().contains("test")) {
            let text = fs::read_to_string(path).expect("reads");
            let code = text.split("#[cfg(test)]").next().unwrap_or(&text).lines().count();
            assert!(code <= 600, "{} has {code} lines without tests: split it", path.display());
        }
    }
}
