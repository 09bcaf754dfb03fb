use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;

use super::fixture::{Fixture, SITE, files, findings, interpreters, not_utf8, python, shortened, touch};
use super::*;
use crate::model::{FindingKind, PythonKind};

#[test]
fn discover_assigns_files_to_distributions_that_list_them() {
    let fixture = Fixture::new();
    fixture.install(
        "Tool.Box",
        "1.0",
        &[
            ("toolbox/__init__.py", "x = 1\n"),
            ("toolbox/_fast.cpython-311-x86_64-linux-gnu.so", "ELF"),
            ("toolbox.libs/libz.so.1", "ELF"),
            ("../../../bin/box", "#!/x/bin/python\n"),
            ("../../../share/box/data.txt", "d"),
            ("Tool.Box-1.0.dist-info/entry_points.txt", "[console_scripts]\nbox = toolbox:main\n"),
            ("Tool.Box-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: cp311-cp311-linux_x86_64\n"),
        ],
    );
    fixture.module("toolbox/__pycache__/__init__.cpython-311.pyc", "code");
    fixture.module("toolbox/__pycache__/__init__.cpython-310.pyc", "old");
    fixture.module("toolbox/__pycache__/gone.cpython-311.pyc", "stale");
    fixture.module("mine.py", "");
    fixture.module("__pycache__/mine.cpython-311.pyc", "code");
    fixture.module("_virtualenv.py", "");
    fixture.write("bin/activate", "");
    fixture.write(".gitignore", "*");
    fixture.write("etc/mine.conf", "");
    fs::write(not_utf8(&fixture.prefix().join("share/box")), "").expect("writes");
    let environment = fixture.discover();

    assert_eq!(
        files(&environment, "tool-box"),
        [
            "bin/box",
            "Tool.Box-1.0.dist-info/INSTALLER",
            "Tool.Box-1.0.dist-info/METADATA",
            "Tool.Box-1.0.dist-info/RECORD",
            "Tool.Box-1.0.dist-info/WHEEL",
            "Tool.Box-1.0.dist-info/entry_points.txt",
            "toolbox.libs/libz.so.1",
            "toolbox/__init__.py",
            "toolbox/__pycache__/__init__.cpython-311.pyc",
            "toolbox/_fast.cpython-311-x86_64-linux-gnu.so",
            "share/box/data.txt",
        ]
    );
    let unowned = shortened(&environment.unowned);
    let expected = ["etc/mine.conf", "__pycache__/mine.cpython-311.pyc", "mine.py", "share/box/caf\u{fffd}.txt"];
    assert_eq!(unowned, expected);
    let distribution = environment.distribution("tool-box").expect("there");
    assert_eq!((distribution.display_name.as_str(), distribution.version.as_str()), ("Tool.Box", "1.0"));
    assert_eq!(distribution.import_names, ["toolbox"]);
    assert_eq!(distribution.entry_points[0].value, "toolbox:main");
    assert_eq!(distribution.tags, ["cp311-cp311-linux_x86_64"]);
    assert_eq!(distribution.suspects, []);
    assert_eq!(environment.warnings, []);
}

#[test]
fn discover_assigns_contested_files_by_content() {
    let fixture = Fixture::new();
    fixture.install("aa", "1", &[("ns/__init__.py", ""), ("both.py", "of a"), ("changed.py", "of a")]);
    fixture.install("bb", "1", &[("ns/__init__.py", ""), ("both.py", "of b"), ("changed.py", "of b")]);
    fixture.module("changed.py", "of the user");
    fixture.module("__pycache__/both.cpython-311.pyc", "");
    let environment = fixture.discover();
    let modules = |name| files(&environment, name).into_iter().filter(|f| !f.contains("dist-info")).collect::<Vec<_>>();
    assert_eq!(modules("aa"), ["ns/__init__.py"]);
    assert_eq!(modules("bb"), ["__pycache__/both.cpython-311.pyc", "both.py"]);
    assert_eq!(shortened(&environment.unowned), ["changed.py"]);
    let contested: Vec<_> = environment.contested.iter().map(|c| (c.path.to_string(), c.matching.join(","))).collect();
    let site = |name: &str| format!("{SITE}/{name}");
    let expected = [(site("both.py"), "bb"), (site("changed.py"), ""), (site("ns/__init__.py"), "aa,bb")];
    assert_eq!(contested, expected.map(|(p, m)| (p, m.to_owned())));
    let said = findings(&environment, FindingKind::Contested);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("both.py: claimed by aa, bb, with the content of bb"), "{said:?}");
    assert!(said[1].contains("with the content of none"), "{said:?}");
}

#[test]
fn discover_warns_of_damaged_environments() {
    let fixture = Fixture::new();
    fixture.install("half", "1", &[("half/__init__.py", ""), ("half/gone.py", ""), ("half/also.py", "")]);
    fs::remove_file(fixture.prefix().join(SITE).join("half/gone.py")).expect("removes");
    fs::remove_file(fixture.prefix().join(SITE).join("half/also.py")).expect("removes");
    fixture.install("nometa", "2", &[("nometa.py", "")]);
    fs::remove_file(fixture.prefix().join(SITE).join("nometa-2.dist-info/METADATA")).expect("removes");
    fixture.install("norec", "3", &[("norec/__init__.py", ""), ("norec_other.py", "")]);
    fs::remove_file(fixture.prefix().join(SITE).join("norec-3.dist-info/RECORD")).expect("removes");
    fixture.module("rest-4.dist-info/INSTALLER", "pip");
    fixture.module("~umpy/core.py", "");
    fixture.module("~umpy-1.dist-info/RECORD", "");
    fixture.install("twice", "1", &[("twice.py", "old"), ("twice_old.py", "")]);
    fixture.install("twice", "2", &[("twice.py", "new")]);
    fs::remove_file(fixture.prefix().join(SITE).join("twice_old.py")).expect("removes");
    let environment = fixture.discover();

    let names: Vec<_> = environment.distributions.iter().map(|d| (d.name.as_str(), d.version.as_str())).collect();
    assert_eq!(names, [("half", "1"), ("nometa", "2"), ("norec", "3"), ("twice", "2")]);
    assert!(files(&environment, "norec").contains(&"norec/__init__.py".to_owned()));
    assert_eq!(shortened(&environment.unowned), ["norec_other.py", "rest-4.dist-info/INSTALLER"]);
    let missing = findings(&environment, FindingKind::MissingFiles);
    assert!(missing.iter().any(|m| m.contains("half 1: RECORD lists 2 files that are not there")), "{missing:?}");
    let leftover = findings(&environment, FindingKind::Leftover);
    assert_eq!(leftover.len(), 2, "{leftover:?}");
    assert!(leftover.iter().any(|m| m.contains("~umpy is left out")), "{leftover:?}");
    let damaged = findings(&environment, FindingKind::DamagedMetadata);
    for part in ["nometa-2.dist-info has no readable metadata", "norec-3.dist-info has no readable RECORD", "rest-4"] {
        assert!(damaged.iter().any(|m| m.contains(part)), "{part}: {damaged:?}");
    }
    let twice = findings(&environment, FindingKind::Duplicate);
    assert!(twice.len() == 1 && twice[0].contains("twice 2 is packed"), "{twice:?}");
    assert!(environment.warnings.iter().all(|w| w.message.lines().count() == 1));
}

#[test]
fn discover_tells_of_large_files_that_no_package_owns() {
    let fixture = Fixture::new();
    fixture.install("spark", "1", &[("spark/__init__.py", "")]);
    let large = |name: &str, mebibytes: u64| {
        fixture.module(name, "");
        let file = fs::File::options().write(true).open(fixture.prefix().join(SITE).join(name)).expect("opens");
        file.set_len(mebibytes << 20).expect("grows");
    };
    large("spark/kept/app-1/stdout", 40);
    large("spark/kept/app-2/stdout", 40);
    large("other/data", 20);
    assert!(findings(&fixture.discover(), FindingKind::Unowned).is_empty());
    fixture.module("one_more.py", "1");
    let place = format!("{SITE}/spark/kept: delete");
    let environment = fixture.discover();
    let said = findings(&environment, FindingKind::Unowned);
    assert!(said.len() == 1 && said[0].contains("100 MiB") && said[0].contains(&place), "{said:?}");
    // No folder has most of it, but that of the packages.
    large("other/more", 60);
    let environment = fixture.discover();
    assert!(findings(&environment, FindingKind::Unowned)[0].contains(&format!("{SITE}: delete")));
}

#[test]
fn discover_suspects_changed_files() {
    let fixture = Fixture::new();
    fixture.install("a", "1", &[("a/same.py", "x"), ("a/longer.py", "x"), ("a/later.py", "x"), ("a/old.py", "x")]);
    let site = fixture.prefix().join(SITE);
    fixture.module("a/longer.py", "xx");
    touch(&site.join("a/later.py"), 60);
    touch(&site.join("a/old.py"), -1000);
    let environment = fixture.discover();
    let suspects = &environment.distribution("a").expect("there").suspects;
    let found: Vec<_> = suspects.iter().map(|s| (s.path.to_string(), s.certain)).collect();
    assert_eq!(found, [(format!("{SITE}/a/longer.py"), true), (format!("{SITE}/a/later.py"), false)]);
    assert_eq!(crate::record::matches(&suspects[1].hash, b"x"), Some(true));
}

#[test]
fn discover_keeps_links_inside_and_follows_links_to_files() {
    let fixture = Fixture::new();
    let prefix = fixture.prefix();
    fixture.write("share/real/data", "d");
    fixture.write(fixture.beside("outside/file"), "content");
    for (target, at) in [
        ("real/data".into(), "share/relative"),
        (prefix.join("share/real"), "share/absolute"),
        (prefix.join("lib64/python3.11"), "share/through"),
        (fixture.beside("outside/file"), "share/followed"),
        (fixture.beside("outside"), "share/folder"),
        ("/nowhere/at/all".into(), "share/dangling"),
    ] {
        symlink(target, prefix.join(at)).expect("links");
    }
    let environment = fixture.discover();
    let link = |target: &str| FileKind::Link(target.as_bytes().into());
    let found: Vec<_> = environment.unowned.iter().map(|f| (f.path.to_string(), f.kind.clone())).collect();
    let expected = [
        ("share/absolute", link("../share/real")),
        ("share/followed", FileKind::File),
        ("share/real/data", FileKind::File),
        ("share/relative", link("real/data")),
        ("share/through", link("../lib/python3.11")),
    ];
    assert_eq!(found, expected.map(|(path, kind)| (path.to_owned(), kind)));
    let followed = &environment.unowned[1];
    assert_eq!(fs::read(environment.source(followed)).expect("reads"), b"content");
    assert_eq!(followed.size, 7);
    let said = findings(&environment, FindingKind::Outside);
    assert_eq!(said.len(), 2, "{said:?}");
}

#[test]
fn discover_finds_eggs_by_lists_and_names() {
    let fixture = Fixture::new();
    fixture.module("old-1.0-py3.11.egg-info/PKG-INFO", "Name: old\nVersion: 1.0\n");
    fixture
        .module("old-1.0-py3.11.egg-info/installed-files.txt", "../old/__init__.py\nPKG-INFO\n../../../../bin/old\n");
    fixture.module("old-1.0-py3.11.egg-info/requires.txt", "six\n\n[x]\nnumpy\n");
    fixture.module("old/__init__.py", "");
    fixture.write("bin/old", "");
    fixture.module("apt.egg-info", "Name: apt\nVersion: 2\n");
    fixture.module("apt.py", "");
    fixture.module("top.egg-info/PKG-INFO", "Name: top\nVersion: 3\n");
    fixture.module("top.egg-info/top_level.txt", "top_a\ntop_b\n");
    fixture.module("top_a/x.py", "");
    fixture.module("top_b.abi3.so", "");
    fixture.module("top_c.py", "");
    fixture.module("zoo-4-py3.11.egg/EGG-INFO/PKG-INFO", "Name: zoo\nVersion: 4\n");
    fixture.module("zoo-4-py3.11.egg/zoo.py", "");
    // Of the wheel that the egg was made of.
    fixture.module("zoo-4-py3.11.egg/EGG-INFO/RECORD", "zoo.py,,\nzoo-4.dist-info/METADATA,,\n");
    let environment = fixture.discover();
    let names: Vec<_> = environment.distributions.iter().map(|d| (d.name.as_str(), d.version.as_str())).collect();
    assert_eq!(names, [("apt", "2"), ("old", "1.0"), ("top", "3"), ("zoo", "4")]);
    assert_eq!(files(&environment, "apt"), ["apt.egg-info", "apt.py"]);
    assert!(files(&environment, "old").contains(&"bin/old".to_owned()));
    assert_eq!(environment.distribution("old").expect("there").requires, ["six", "numpy; extra == 'x'"]);
    assert_eq!(environment.distribution("top").expect("there").import_names, ["top_a", "top_b"]);
    assert_eq!(shortened(&environment.unowned), ["top_c.py"]);
    assert_eq!(files(&environment, "zoo").len(), 3);
    assert_eq!(findings(&environment, FindingKind::MissingFiles), [""; 0]);
}

#[test]
fn discover_takes_only_installed_files_of_a_project_prefix() {
    let fixture = Fixture::new();
    fixture.write("pyproject.toml", "");
    fixture.write("src/secret.py", "");
    fixture.write("share/x", "");
    assert_eq!(shortened(&fixture.discover().unowned), ["share/x"]);
}

#[test]
fn discover_has_no_path_twice() {
    let fixture = Fixture::new();
    fixture.install("a", "1", &[("x.py", "1"), ("x.py", "1"), ("./y/../x.py", "1"), ("../../../share/s", "")]);
    fixture.install("b", "1", &[("x.py", "1"), ("../../../lib64/python3.11/site-packages/z.py", "")]);
    let environment = fixture.discover();
    let owned = environment.distributions.iter().flat_map(|d| &d.files);
    let all: Vec<_> = owned.chain(&environment.unowned).map(|f| f.path.clone()).collect();
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    assert!(files(&environment, "b").contains(&"z.py".to_owned()));
}

#[test]
fn discover_warns_of_kinds_of_prefixes() {
    let fixture = Fixture::new();
    fixture.write("pyvenv.cfg", "home = /nowhere\nversion = 3.11.7\ninclude-system-site-packages = true\n");
    fixture.write("lib/python3.10/site-packages/x.py", "");
    let environment = fixture.discover();
    assert_eq!(environment.unowned, []);
    assert!(findings(&environment, FindingKind::SystemSitePackages)[0].contains("/nowhere"));
    assert!(findings(&environment, FindingKind::OtherVersion)[0].contains("lib/python3.10 is left out"));
    fs::remove_dir_all(fixture.prefix().join(SITE)).expect("removes");
    let error = discover(&fixture.prefix(), &fixture.options()).expect_err("no site-packages").to_string();
    assert!(error.contains("has no") && error.contains(SITE), "{error}");
}

#[test]
fn discover_leaves_condas_interpreter_out() {
    let fixture = Fixture::new();
    fs::remove_file(fixture.prefix().join("pyvenv.cfg")).expect("removes");
    fixture
        .write("conda-meta/python-3.11.7-h0.json", r#"{"name":"python","files":["bin/2to3","lib/libpython3.11.so"]}"#);
    fixture.write("bin/2to3", "");
    fixture.write("lib/libpython3.11.so", "");
    fixture.write("lib/libopenblas.so", "");
    fixture.write("lib/python3.11/os.py", "");
    fixture.write("pkgs/x/y", "");
    fixture.write("include/zlib.h", "");
    fixture.install("numpy", "1", &[("numpy/__init__.py", "")]);
    let python = PythonInfo { kind: PythonKind::Conda, ..python(&fixture.prefix()) };
    let options = DiscoverOptions { python: Some(python), ..fixture.options() };
    let environment = discover(&fixture.prefix(), &options).expect("an environment");
    assert_eq!(shortened(&environment.unowned), ["lib/libopenblas.so"]);
    assert_eq!(findings(&environment, FindingKind::Conda).len(), 1);
}

#[test]
fn discover_asks_every_interpreter_of_this_machine() {
    let interpreters = interpreters();
    assert!(!interpreters.is_empty(), "these tests need a CPython 3.9 or later with venv");
    for interpreter in interpreters {
        println!("with {}", interpreter.display());
        let directory = tempfile::tempdir().expect("a directory");
        let prefix = directory.path().join("venv");
        let mut command = std::process::Command::new(&interpreter);
        let made = command.args(["-I", "-m", "venv", "--without-pip"]).arg(&prefix).status();
        assert!(made.expect("runs").success());
        let options = DiscoverOptions { whole_conda: false, cache_dir: directory.path().join("cache"), python: None };
        let environment = discover(&prefix, &options).expect("an environment");
        let info = &environment.python;
        assert!(interpreter.to_string_lossy().ends_with(&info.tag), "{info:?}");
        assert!(info.soabi.starts_with("cpython-3") && info.platform.starts_with("linux-"), "{info:?}");
        assert!(!info.base_executable.starts_with(&prefix) && info.base_executable.is_file(), "{info:?}");
        assert!(info.stdlib.binary_search(&"json".into()).is_ok() && info.stdlib.binary_search(&"sys".into()).is_ok());
        assert_eq!(info.kind, PythonKind::Venv);
        assert_eq!((environment.unowned.as_slice(), environment.warnings.as_slice()), (&[][..], &[][..]));
        // The second time it is not run: a record that says otherwise is believed.
        let record = fs::read_dir(options.cache_dir.join("interpreters")).expect("reads").flatten().next();
        let record = record.expect("a record").path();
        let answer = fs::read_to_string(&record).expect("reads");
        fs::write(&record, answer.replace("linux-", "other-")).expect("writes");
        let again = discover(&prefix, &options).expect("an environment");
        assert!(again.python.platform.starts_with("other-"));
        fs::write(&record, "{").expect("writes");
        assert_eq!(discover(&prefix, &options).expect("an environment").python, *info);
    }
}

#[test]
fn discover_takes_site_packages_of_an_interpreters_prefix() {
    let interpreter = interpreters().pop().expect("these tests need a CPython 3.9 or later with venv");
    let directory = tempfile::tempdir().expect("a directory");
    let options = DiscoverOptions { whole_conda: false, cache_dir: directory.path().join("cache"), python: None };
    let base = fs::canonicalize(&interpreter).expect("resolves");
    let prefix = base.parent().and_then(std::path::Path::parent).expect("a prefix");
    let environment = discover(prefix, &options).expect("an environment");
    assert!(matches!(environment.python.kind, PythonKind::System | PythonKind::Standalone));
    assert_eq!(findings(&environment, FindingKind::SystemPython).len(), 1);
    let owned = environment.distributions.iter().flat_map(|d| &d.files);
    for file in owned.chain(&environment.unowned) {
        assert!(environment.source(file).symlink_metadata().is_ok(), "{file:?}");
    }
    assert!(environment.unowned.iter().all(|f| f.path.as_bytes().starts_with(environment.site_packages.as_bytes())));
}
