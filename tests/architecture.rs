//! What Cargo cannot say of the architecture: which package may use which stands in each `Cargo.toml`, and the compiler holds it.

#![expect(clippy::expect_used, reason = "tests report by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The packages that building `package` with `features` takes, by name.
fn tree(package: &str, features: &[&str]) -> Vec<String> {
    let arguments = ["tree", "--offline", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}"];
    let mut command = Command::new(env!("CARGO"));
    command.args(arguments).args(["-p", package]).args(features).current_dir(root());
    let output = command.output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
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

#[test]
fn cpack_boot_has_no_network_store_unless_asked() {
    let clients = ["aws-sdk-s3", "hdfs-native", "object_store"];
    let plain = tree("cpack-boot", &[]);
    assert!(plain.iter().any(|name| name == "cpack-node"), "the tree has the packages: {plain:?}");
    assert!(!plain.iter().any(|name| clients.contains(&name.as_str()) || name == "tokio"), "{plain:?}");
    let shipped = tree("cpack-boot", &["--features", "network"]);
    assert!(clients.iter().all(|client| shipped.iter().any(|name| name == client)), "{shipped:?}");
    // One TLS stack, and one client for HTTP.
    assert!(
        !shipped.iter().any(|name| ["aws-lc-rs", "native-tls", "openssl", "reqwest"].contains(&name.as_str())),
        "{shipped:?}"
    );
    // What only packing and measuring need never travels.
    let packers = ["cluster-pack", "cpack-discover", "cpack-layer", "cpack-bench", "clap", "rayon"];
    assert!(!shipped.iter().any(|name| packers.contains(&name.as_str())), "{shipped:?}");
}

#[test]
fn cpack_format_does_no_io() {
    let mut files = Vec::new();
    sources(&root().join("crates/cpack-format/src"), &mut files);
    assert!(files.len() > 8, "cpack-format has hardly any sources");
    for path in files {
        let text = fs::read_to_string(&path).expect("reads");
        let code = text.split("#[cfg(test)]").next().unwrap_or(&text);
        if path.ends_with("zip/tests.rs") {
            continue;
        }
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for habit in ["println!", "eprintln!", "env::var", "thread::", "std::process", "std::fs", "File::open"] {
                assert!(!line.contains(habit), "{} does I/O: {line}", path.display());
            }
        }
    }
}

#[test]
fn files_stay_readable() {
    let mut files = Vec::new();
    for folder in ["crates", "packer/src", "bootstrap/src"] {
        sources(&root().join(folder), &mut files);
    }
    for path in files.iter().filter(|path| !path.to_string_lossy().contains("/tests")) {
        let text = fs::read_to_string(path).expect("reads");
        let code = text.split("#[cfg(test)]").next().unwrap_or(&text).lines().count();
        assert!(code <= 500, "{} has {code} lines without tests: split it", path.display());
    }
}

#[test]
fn docs_have_the_exit_codes_of_both_programs() {
    let page = include_str!("../docs/troubleshooting.md");
    for (exit, meaning) in cpack_format::exit::Exit::MEANINGS {
        let row = format!("| {} | {meaning} |", exit.code());
        assert!(page.contains(&row), "{row}");
    }
}

/// All pages of the guide, and the README, with their paths.
fn pages() -> Vec<(PathBuf, String)> {
    let listed = fs::read_dir(root().join("docs")).expect("docs").map(|entry| entry.expect("an entry").path());
    let guide = listed.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let others = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "packer/python/README.md", "benches/README.md"];
    let paths = guide.chain(others.map(|path| root().join(path)));
    paths.map(|path| (path.clone(), fs::read_to_string(path).expect("reads"))).collect()
}

#[test]
fn links_of_the_docs_lead_somewhere() {
    let mut links = 0;
    for (path, text) in pages() {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().expect("a directory").join(file) };
            assert!(target.exists(), "{}: {link}", path.display());
            let named = |line: &str| line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-") == anchor;
            let found = anchor.is_empty() || fs::read_to_string(&target).expect("reads").lines().any(named);
            assert!(found, "{}: {link} names no heading", path.display());
            links += 1;
        }
    }
    assert!(links > 40, "{links} links were found");
}

#[test]
fn guide_lists_every_page() {
    let summary = fs::read_to_string(root().join("docs/SUMMARY.md")).expect("reads");
    for (path, _) in pages().into_iter().filter(|(path, _)| path.parent().is_some_and(|place| place.ends_with("docs")))
    {
        let name = path.file_name().and_then(|name| name.to_str()).expect("UTF-8");
        let listed = name == "SUMMARY.md" || summary.contains(&format!("({name})"));
        assert!(listed, "docs/SUMMARY.md lacks {name}");
    }
}
