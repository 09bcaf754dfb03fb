//! PEX files both ways: those of upstream's `pex` under the boot, behaving as under plain Python.

#![expect(clippy::expect_used, clippy::print_stderr, reason = "tests report by panicking, and list what they saw")]

mod both;
mod cases;
mod compare;
mod hostile;
mod house;
mod written;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use cpack_test::programs::{World, installed, text, usual_interpreter, utf8};

use cases::{Case, Places};
use compare::{Outcome, compare};

/// Upstream's `pex`, from the index, kept for the next run.
fn pex() -> PathBuf {
    installed("pex", &["pex"]).join("bin/pex")
}

/// Builds one PEX, unless it is there from an earlier run.
fn build(directory: &Path, arguments: &[String], output: &Path) {
    if output.exists() {
        return;
    }
    // The same name in another directory: the name is seen by what runs.
    let staging = tempfile::tempdir_in(directory).expect("a directory");
    let staged = staging.path().join(output.file_name().expect("a name"));
    let mut command = Command::new(pex());
    command.args(arguments).arg("-o").arg(&staged).env("PEX_ROOT", directory.join("build-root")).current_dir(directory);
    let made = command.output().expect("starts");
    assert!(made.status.success() && staged.exists(), "pex {arguments:?}: {}", text(&made.stderr));
    fs::rename(staged, output).expect("renames");
}

/// Version of an interpreter as in the tags of wheels, `cp311`.
fn tag(python: &Path) -> String {
    let code = "import sys; print('cp%d%d' % sys.version_info[:2])";
    let output = Command::new(python).args(["-IS", "-c", code]).output().expect("starts");
    text(&output.stdout).trim().to_owned()
}

/// The directory in which all PEX files of the matrix are made: kept for the next run of the same tests.
struct Workshop {
    directory: PathBuf,
    python: PathBuf,
}

impl Workshop {
    fn new() -> Self {
        let python = usual_interpreter();
        let release = Command::new(pex()).arg("--version").output().expect("starts").stdout;
        let sources = [
            &include_bytes!("house.rs")[..],
            include_bytes!("main.rs"),
            include_bytes!("report.py"),
            utf8(&python).as_bytes(),
        ];
        let digest = blake3::hash(&[&sources.concat(), &release[..]].concat()).to_hex();
        let directory = cpack_test::programs::target().join("test-environments/pex-files").join(&digest[..16]);
        let workshop = Self { directory, python };
        workshop.furnish();
        workshop
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Wheels, the user's code and the PEX files that others are made from.
    fn furnish(&self) {
        house::write(&self.at("house"), &tag(&self.python));
        for (file, content) in [
            ("code/usercode.py", "VALUE = 'user'\n"),
            ("code/clash.py", "VALUE = 'user'\n"),
            ("code/userpkg/__init__.py", ""),
            ("code/userpkg/part.py", "VALUE = 'part'\n"),
            ("code/userpkg/start.py", "from app.report import report\nreport(__name__)\n"),
            ("outside/outside.py", "VALUE = 'outside'\n"),
            ("outside/lib_rary.py", "VALUE = 'outside'\n"),
            ("other/merged.py", "VALUE = 'merged'\n"),
            ("script/script.py", "from app.report import report\nreport(__name__)\nraise SystemExit(6)\n"),
        ] {
            let path = self.at(file);
            fs::create_dir_all(path.parent().expect("a parent")).expect("creates");
            fs::write(path, content).expect("writes");
        }
        let house = self.at("house");
        let from = ["--no-index", "--find-links", utf8(&house)];
        let all = ["app[more]", "ns_one", "ns_two", "clash_a", "clash_b", "split"];
        self.build(&[&from[..], &all].concat(), "repository.pex");
        self.build(&[&from[..], &["extra_lib", "-D", "other"]].concat(), "other.pex");
    }

    fn build(&self, arguments: &[&str], name: &str) {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        build(&self.directory, &arguments, &self.at(name));
    }

    fn cases(&self) -> Vec<Case> {
        cases::all(&Places {
            repository: &self.at("repository.pex"),
            house: &self.at("house"),
            code: &self.at("code"),
            outside: &self.at("outside"),
            other: &self.at("other.pex"),
            script: &self.at("script/script.py"),
            python: &self.python,
        })
    }

    /// The PEX of a case.
    fn pex(&self, case: &Case) -> PathBuf {
        let digest = blake3::hash(format!("{:?}", case.build).as_bytes()).to_hex();
        let path = self.directory.join(&digest[..16]).join(format!("{}.pex", case.name));
        fs::create_dir_all(path.parent().expect("a parent")).expect("creates");
        build(&self.directory, &case.build, &path);
        path
    }
}

#[test]
fn upstreams_pex_files_behave_the_same_under_both_runtimes() {
    let workshop = Workshop::new();
    let wanted = std::env::var("CPACK_TEST_PEX").unwrap_or_default();
    let cases: Vec<Case> = workshop.cases().into_iter().filter(|case| case.name.contains(&wanted)).collect();
    assert!(cases.len() >= 40 || !wanted.is_empty(), "{} PEX files", cases.len());
    cpack_test::programs::boot();
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(Vec::new());
    let worker = || {
        // Each with a node of its own: what one starts warm, another starts cold.
        let world = World::new();
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let output = workshop.pex(case);
            for index in 0..case.runs.len() {
                let outcome = compare(&world, &workshop.python, &output, case, index);
                outcomes.lock().expect("no panic").push(outcome);
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().for_each(|worker| worker.join().expect("no panic"));
    });
    report(&outcomes.into_inner().expect("no panic"), cases.len());
}

/// Lists what was handed over, and fails where anything differs.
fn report(outcomes: &[Outcome], count: usize) {
    let mut handed: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for outcome in outcomes {
        if let Some(reason) = &outcome.reason {
            handed.entry(reason).or_default().push(&outcome.name);
        }
    }
    eprintln!("{count} PEX files, {} starts; handed to plain Python:", outcomes.len());
    for (reason, names) in handed {
        eprintln!("  {reason}: {}", names.join(", "));
    }
    let faulty: Vec<String> = outcomes
        .iter()
        .filter(|outcome| !outcome.faults.is_empty())
        .map(|outcome| format!("{}\n    {}", outcome.name, outcome.faults.join("\n    ")))
        .collect();
    assert!(faulty.is_empty(), "{} of {} starts differ:\n{}", faulty.len(), outcomes.len(), faulty.join("\n"));
}
