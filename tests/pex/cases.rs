//! The matrix: which PEX files are built, how each is started, and which way it is to run.

use std::path::Path;

/// Which way the boot is to start a PEX.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the node cache.
    Native,
    /// By plain Python, for a reason with these words.
    Handed(&'static str),
}

/// One start.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) arguments: Vec<String>,
    pub(crate) environ: Vec<(String, String)>,
    pub(crate) way: Way,
}

/// One PEX.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// What `pex` gets beside `-o`.
    pub(crate) build: Vec<String>,
    pub(crate) runs: Vec<Run>,
}

/// Places that cases refer to.
#[derive(Debug)]
pub(crate) struct Places<'a> {
    /// The PEX of everything, from which the others are taken.
    pub(crate) repository: &'a Path,
    /// The wheels.
    pub(crate) house: &'a Path,
    /// A directory of the user's own modules.
    pub(crate) code: &'a Path,
    /// A directory beside, with a module `outside`.
    pub(crate) outside: &'a Path,
    /// A PEX with a module `merged` and a project `extra_lib`.
    pub(crate) other: &'a Path,
    /// Code that is to run before all else.
    pub(crate) preamble: &'a Path,
    /// A script file.
    pub(crate) script: &'a Path,
    /// The interpreter.
    pub(crate) python: &'a Path,
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// A start with these arguments.
fn run(arguments: &[&str]) -> Run {
    Run { arguments: texts(arguments), environ: Vec::new(), way: Way::Native }
}

impl Run {
    fn with(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.environ.push((name.into(), value.as_ref().to_string_lossy().into_owned()));
        self
    }

    fn handed(mut self, reason: &'static str) -> Self {
        self.way = Way::Handed(reason);
        self
    }
}

const CODE: &str = "from app.report import report; report('code')";

/// Layouts, with and without venv mode, with chroots and wheels, and everything that can be started.
fn layouts(from: &[String]) -> Vec<Case> {
    let entries: [(&str, &[&str], Vec<Run>); 5] = [
        ("none", &[], vec![run(&["-c", CODE, "a", "-b"]), run(&["-m", "app.main", "--exit"])]),
        ("module", &["-m", "app.main"], vec![run(&["a", "--exit"]), run(&["-c", CODE]).with("PEX_INTERPRETER", "1")]),
        ("function", &["-m", "app.main:run"], vec![run(&["--fail", "x y"])]),
        ("script", &["-c", "app-tool"], vec![run(&["a"]), run(&["b"]).with("PEX_MODULE", "app.main")]),
        ("method", &["-m", "app.main:Tool.run"], vec![run(&[]), run(&["c"]).with("PEX_SCRIPT", "app-tool")]),
    ];
    let mut cases = Vec::new();
    for (l, layout) in ["zipapp", "packed", "loose"].iter().enumerate() {
        for (v, venv) in [&[][..], &["--venv"]].iter().enumerate() {
            for (w, wheels) in [&[][..], &["--no-pre-install-wheels"]].iter().enumerate() {
                for (e, (entry, arguments, runs)) in entries.iter().enumerate() {
                    // All pairs, and every entry in every layout: the rest adds time and no knowledge.
                    if (l + v + 2 * w + e) % 2 == 1 {
                        continue;
                    }
                    let mode = if venv.is_empty() { "classic" } else { "venv" };
                    let dependencies = if wheels.is_empty() { "chroots" } else { "wheels" };
                    let build =
                        [from, &texts(&["app", "--layout", layout]), &texts(venv), &texts(wheels), &texts(arguments)];
                    let name = format!("{layout}-{mode}-{dependencies}-{entry}");
                    cases.push(Case { name, build: build.concat(), runs: runs.clone() });
                }
            }
        }
    }
    cases
}

/// Every PEX of the matrix.
#[expect(clippy::too_many_lines, reason = "a table")]
pub(crate) fn all(places: &Places<'_>) -> Vec<Case> {
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let from = vec!["--pex-repository".into(), text(places.repository)];
    let mut cases = layouts(&from);
    let mut add = |name: &str, build: &[&str], runs: Vec<Run>| {
        cases.push(Case { name: name.into(), build: [from.clone(), texts(build)].concat(), runs });
    };
    let (code, outside) = (text(places.code), text(places.outside));
    let show = || run(&["-c", CODE]);
    add("empty", &[], vec![run(&["-c", "import sys; print(sys.argv, sys.flags.isolated)"])]);
    add("extras", &["app[more]"], vec![show()]);
    add("extras-script", &["app[more]", "-c", "app-method"], vec![run(&["x"])]);
    add("plain-script", &["app", "-c", "app-script"], vec![run(&["x"])]);
    add("plain-script-venv", &["app", "-c", "app-script", "--venv"], vec![run(&["x"])]);
    add("shell-script", &["app", "-c", "app-shell"], vec![run(&["x", "y z"])]);
    add("shell-script-venv", &["app", "-c", "app-shell", "--venv"], vec![run(&["x"])]);
    add("user-code", &["app", "-D", &code, "-m", "userpkg.start"], vec![run(&["x"])]);
    add("user-code-venv", &["app", "-D", &code, "-m", "userpkg.start", "--venv"], vec![run(&["x"])]);
    add("user-code-packed", &["app", "-D", &code, "--layout", "packed"], vec![show()]);
    add("file", &["app", "--exe", &text(places.script)], vec![run(&["x"])]);
    add("script-file", &["app"], vec![run(&[&text(places.script), "x"])]);
    for (mode, more) in [("", &[][..]), ("-venv", &["--venv"]), ("-loose", &["--layout", "loose"])] {
        add(&format!("namespaces{mode}"), &[&["app", "ns_one", "ns_two"], more].concat(), vec![show()]);
        let both = [&["app", "clash_b", "clash_a", "-D", &code], more].concat();
        add(&format!("conflicts{mode}"), &both, vec![show()]);
        add(&format!("split{mode}"), &[&["app", "split"], more].concat(), vec![show()]);
    }
    add("split-wheels", &["app", "split", "--no-pre-install-wheels"], vec![show()]);
    add("conflicts-wheels", &["app", "clash_a", "clash_b", "--no-pre-install-wheels"], vec![show()]);
    for inherit in ["prefer", "fallback", "false"] {
        let name = format!("inherit-{inherit}");
        let option = format!("--inherit-path={inherit}");
        let runs =
            vec![show(), show().with("PYTHONPATH", &outside), run(&["-m", "app.main"]).with("PYTHONPATH", &outside)];
        add(&name, &["app", "clash_a", "clash_b", "-D", &code, &option], runs);
    }
    let inherits =
        ["prefer", "fallback"].map(|mode| show().with("PEX_INHERIT_PATH", mode).with("PYTHONPATH", &outside));
    add("inherit-by-variable", &["app"], inherits.to_vec());
    add("inherit-venv", &["app", "--inherit-path=fallback", "--venv"], vec![show().with("PYTHONPATH", &outside)]);
    add("system-site", &["app", "--venv", "--venv-system-site-packages"], vec![show()]);
    let hermetic = ["app", "--venv", "--non-hermetic-venv-scripts"];
    add("not-hermetic", &hermetic, vec![show().with("PYTHONPATH", &outside)]);
    let extra = || show().with("PEX_EXTRA_SYS_PATH", &outside);
    add("extra-sys-path", &["app"], vec![extra(), run(&["-m", "app.main"]).with("PEX_EXTRA_SYS_PATH", &outside)]);
    add("extra-sys-path-venv", &["app", "--venv"], vec![extra()]);
    let other = text(places.other);
    add("pex-path", &["app", "--pex-path", &other], vec![show()]);
    add("pex-path-venv", &["app", "--venv", "--pex-path", &other], vec![show()]);
    add("pex-path-by-variable", &["app"], vec![show().with("PEX_PATH", &other), show()]);
    add("venv-by-variable", &["app", "--include-tools"], vec![show().with("PEX_VENV", "1"), show()]);
    let injected = ["--inject-env", "INJECTED=yes", "--inject-env", "GIVEN=never", "--inject-args=--one 'two three'"];
    for (name, more) in
        [("injected", &[][..]), ("injected-venv", &["--venv"]), ("injected-none", &["--layout", "packed"])]
    {
        let entry: &[&str] = if name == "injected-none" { &[] } else { &["-c", "app-tool"] };
        let build = [&["app"], &injected[..], more, entry].concat();
        let runs = vec![run(&["x"]).with("GIVEN", "yes"), run(&["x"]).with("PEX_MODULE", "app.main")];
        let runs = if name == "injected-none" { vec![show().with("GIVEN", "yes")] } else { runs };
        add(name, &build, runs);
    }
    let formatted = ["app", "-m", "app.main", "--inject-args={pex.env.GIVEN} {pex.env.NONE}- {{}}"];
    add("injected-formatted", &formatted, vec![run(&["x"]).with("GIVEN", "there")]);
    add("python-args", &["app", "-m", "app.main", "--inject-python-args=-W ignore"], vec![run(&["x"])]);
    add("kept-variables", &["app", "--no-strip-pex-env"], vec![show().with("PEX_VERBOSE", "0")]);
    for bin in ["prepend", "append"] {
        add(&format!("bin-{bin}"), &["app", "--venv", bin], vec![show(), show().with("PEX_VENV_BIN_PATH", "false")]);
    }
    add("resource", &["app", "--bind-resource-path", "RESOURCE=app/data/hello.txt"], vec![show()]);
    add("excluded", &["app", "--exclude", "here"], vec![show()]);
    let constrained = ["app", "--interpreter-constraint", ">=3.9", "--python", &text(places.python)];
    add("constraints", &constrained, vec![show(), show().with("PEX_PYTHON", places.python)]);
    add("python-by-variable", &["app"], vec![show().with("PEX_PYTHON", places.python)]);
    let directory = text(places.python.parent().expect("a directory"));
    add("python-path-by-variable", &["app"], vec![show().with("PEX_PYTHON_PATH", &directory)]);
    add("verbatim-shebang", &["app", "--python-shebang", "#!/usr/bin/env python3"], vec![show()]);
    add("sh-boot", &["app", "--sh-boot"], vec![show()]);
    add("sh-boot-loose", &["app", "--sh-boot", "--layout", "loose"], vec![show()]);
    let preamble = text(places.preamble);
    for (name, more) in [
        ("preamble", &[][..]),
        ("preamble-venv", &["--venv"]),
        ("preamble-sh-loose", &["--sh-boot", "--layout", "loose"]),
    ] {
        let ran = run(&["-c", "import os; print(os.environ['PREAMBLE'])"]).handed("preamble");
        add(name, &[&["app", "--preamble-file", &preamble], more].concat(), vec![ran]);
    }
    add("stored", &["app", "--no-compress"], vec![show()]);
    add("compiled", &["app", "--compile"], vec![show()]);
    add("unmet", &["app", "--ignore-errors"], vec![run(&["-c", "import app; print(app.VERSION)"])]);
    let errors = vec![run(&[]).with("PEX_MODULE", "no.such.module"), run(&["-c", "raise SystemExit(9)"])];
    add("errors", &["app"], errors);
    let tools = vec![run(&["info"]).with("PEX_TOOLS", "1").handed("PEX_TOOLS")];
    add("tools", &["app", "--include-tools"], tools);
    let profiled =
        vec![run(&["-c", "print(1)"]).with("PEX_PROFILE_FILENAME", "/dev/null").handed("PEX_PROFILE_FILENAME")];
    add("profiled", &["app"], profiled);
    let machine = std::env::consts::ARCH;
    let house = text(places.house);
    let build = texts(&["--no-index", "--find-links", &house, "app", "--override", "here=split"]);
    cases.push(Case { name: "overridden".into(), build, runs: vec![show()] });
    let platforms = [
        "macosx-11.0-arm64-cp-38-cp38",
        "macosx-11.0-arm64-cp-39-cp39",
        &format!("manylinux_2_17_{machine}-cp-39-cp39"),
    ];
    let platforms: Vec<&str> = platforms.iter().flat_map(|platform| ["--platform", platform]).collect();
    let python = text(places.python);
    for (name, more) in [
        ("platforms", &[][..]),
        ("platforms-wheels", &["--no-pre-install-wheels", "--layout", "packed"]),
        ("platforms-venv", &["--venv"]),
    ] {
        let base = ["--no-index", "--find-links", &house, "--python", &python, "tagged", "lib_rary"];
        let build = texts(&[&base, &platforms[..], more].concat());
        let runs = vec![run(&["-c", "import tagged, lib_rary; print(tagged.VALUE, lib_rary.VALUE)"])];
        cases.push(Case { name: name.into(), build, runs });
    }
    cases
}
