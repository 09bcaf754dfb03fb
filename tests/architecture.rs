//! What Cargo cannot say of the architecture: which package may use which stands in each `Cargo.toml`, and the compiler holds it.

#![expect(clippy::expect_used, reason = "tests report by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The packages that building `package` with `features` takes, by name. Cargo fetches those that no test is built with.
fn tree(package: &str, features: &[&str]) -> Vec<String> {
    let arguments = ["tree", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}"];
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

#[test]
fn everything_has_one_version() {
    let read = |path: &str| fs::read_to_string(root().join(path)).expect("reads");
    let folders = ["crates", "packer", "bootstrap"].map(|folder| root().join(folder));
    let mut manifests: Vec<PathBuf> = vec![root().join("Cargo.toml")];
    for folder in folders {
        let inside = fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path());
        manifests.extend(inside.chain([folder]).map(|path| path.join("Cargo.toml")).filter(|path| path.is_file()));
    }
    assert!(manifests.len() > 15, "{manifests:?}");
    // A copy of another project's crate has that one's version.
    for path in manifests.iter().filter(|path| !path.ends_with("crates/crc/Cargo.toml")) {
        let text = fs::read_to_string(path).expect("reads");
        assert!(text.contains("\nversion.workspace = true\n"), "{} has a version of its own", path.display());
    }
    let python = read("packer/python/pyproject.toml");
    assert!(python.contains("\ndynamic = [\"version\"]\n"), "the wheel takes the version of the workspace");
    let version = format!("\nversion = \"{}\"\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(read("Cargo.toml").matches(&version).count(), 1, "tools/release finds it");
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

/// What stands before the text of a message in the sources.
const MARKS: [&str; 8] =
    ["#[error(", "Usage(", "usage(", "Damaged(", "NotFound(", "reason: ", "let reason = ", "misconfigured(uri, "];

/// Messages that the page cannot have, and why.
const UNLISTED: [(&str, &str); 6] = [
    ("cannot … …", "the verb is read or write, and both have rows"),
    ("cannot read", "the verb of an error of a store, before its reason"),
    ("…: …", "what failed first and why last, each with a row of its own"),
    ("… (tried … in … s)", "what a reason gets after tries"),
    ("a thread panicked", "the panic's own words are printed before it"),
    ("a unit of work without its entry", "the compiler cannot see that it never happens"),
];

/// The string literal that `text` begins with, perhaps in a `format!`, with … for each placeholder.
fn literal(text: &str) -> Option<String> {
    let text = text.trim_start().trim_start_matches('&').trim_start_matches("format!(").trim_start();
    let mut characters = text.strip_prefix('"')?.chars().peekable();
    let mut found = String::new();
    loop {
        match characters.next()? {
            '"' => return Some(found),
            '\\' => match characters.next()? {
                '\n' => while characters.next_if(|c| c.is_whitespace()).is_some() {},
                'n' => found.push(' '),
                other => found.push(other),
            },
            '{' => {
                characters.by_ref().find(|c| *c == '}')?;
                found.push('…');
            }
            other => found.push(other),
        }
    }
}

/// The sources of the programs, without tests.
fn code() -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    for folder in ["crates", "packer/src", "bootstrap/src"] {
        sources(&root().join(folder), &mut files);
    }
    let apart = ["cpack-test", "cpack-fault", "/tests", "tests.rs", "conformance", "fixture"];
    files.retain(|path| !apart.iter().any(|name| path.to_string_lossy().contains(name)));
    let without_tests = |text: String| text.split("#[cfg(test)]").next().map(str::to_owned);
    files.into_iter().filter_map(|path| Some((path.clone(), without_tests(fs::read_to_string(path).ok()?)?))).collect()
}

/// The messages in the sources that stand where messages stand, each with its file.
fn messages() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for (path, code) in code() {
        let after_marks = MARKS.iter().flat_map(|mark| code.split(mark).skip(1));
        // A store's errors: the kind, then the reason.
        let kinds = if path.starts_with(root().join("crates/cpack-store")) { "Kind::" } else { "StoreErrorKind::" };
        let after_kinds = code.split(kinds).skip(1).filter_map(|rest| rest.split_once(", ").map(|(_, rest)| rest));
        let of_one_word = |message: &String| !message.contains(' ');
        let texts = after_marks.chain(after_kinds).filter_map(literal).filter(|message| !of_one_word(message));
        found.extend(texts.map(|message| (path.clone(), message)));
    }
    found
}

/// Whether `shown`, where … stands for anything, is how `message` begins.
fn begins(message: &str, shown: &str) -> bool {
    let mut pieces = shown.split('…');
    let Some(mut rest) = pieces.next().and_then(|first| message.strip_prefix(first)) else { return false };
    for piece in pieces {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    true
}

/// What the first column of each table of the page of messages has between backquotes.
fn shown_messages() -> Vec<&'static str> {
    let rows = include_str!("../docs/messages.md").lines().filter_map(|line| line.strip_prefix("| `"));
    rows.flat_map(|row| row.split("` |").next().unwrap_or(row).split("`<br>`")).collect()
}

#[test]
fn docs_have_every_message() {
    let (messages, shown) = (messages(), shown_messages());
    assert!(messages.len() > 200 && shown.len() > 150, "{} messages, {} shown", messages.len(), shown.len());
    // A message without words of its own passes on those of another.
    let has_words = |text: &str| text.chars().filter(|c| c.is_alphabetic()).count() > 3;
    let unlisted = |message: &str| UNLISTED.iter().any(|(start, _)| begins(message, start));
    let mut wrong = Vec::new();
    for (path, message) in messages.iter().filter(|(_, message)| has_words(message)) {
        if !unlisted(message) && !shown.iter().any(|shown| has_words(shown) && begins(message, shown)) {
            wrong.push(format!("docs/messages.md has no row for {message:?} of {}", path.display()));
        }
    }
    // Some messages are constants, or arguments of a function: any literal will do.
    let quoted = |code: &str| code.match_indices('"').filter_map(|(at, _)| literal(&code[at..])).collect::<Vec<_>>();
    let literals: Vec<String> = code().iter().flat_map(|(_, code)| quoted(code)).collect();
    for shown in shown {
        if !literals.iter().any(|message| begins(message, shown)) {
            wrong.push(format!("docs/messages.md has {shown:?}, which no program says"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn results_of_measurements_stay_only_where_they_hold() {
    let mut command = Command::new("python3");
    command
        .args(["-m", "unittest", "--quiet"])
        .current_dir(root().join("benches/peers"))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let output = command.output().expect("python3");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("Ran 5 tests"), "{said}");
}
