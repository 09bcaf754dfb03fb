//! PEX files that cluster-pack writes: under both runtimes, in the hands of upstream's tools, and where Python has limits.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cpack_test::programs::{
    World, boot, cluster_pack, install_by_hand, installed, succeeded, text, utf8, venv, venv_without_pip,
};
use serde_json::Value;

use crate::Workshop;
use crate::both::{CODE, seen};

/// An environment with the projects of the matrix.
fn environment(workshop: &Workshop, world: &World) -> PathBuf {
    let path = world.path("venv");
    venv(&workshop.python, &path);
    let mut pip = Command::new(path.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--find-links"]);
    succeeded(
        &pip.arg(workshop.at("house")).args(["app[more]", "split", "ns_one", "ns_two"]).output().expect("starts"),
        "pip",
    );
    path
}

#[test]
fn written_pex_runs_everywhere_and_upstreams_tools_take_it() {
    let (workshop, world) = (Workshop::new(), World::new());
    let venv = environment(&workshop, &world);
    let expected =
        succeeded(&world.command(venv.join("bin/python")).args(["-c", CODE]).output().expect("starts"), "venv");
    for (format, name) in [
        ("pex", "a.pex"),
        ("pex-packed", "b.pex"),
        ("pex-loose", "c.pex"),
        ("pex-packed", "d.pex.zip"),
        ("pex-loose", "e.pex.zip"),
    ] {
        let pex = world.path(name);
        succeeded(&pack(&world, &venv, &pex, &["--format", format]).output().expect("starts"), name);
        let metrics = world.path(&format!("{name}.metrics"));
        for way in ["exec", "CPACK_ARTIFACT", "URI"] {
            let mut command = world.command(boot());
            command.env("CPACK_METRICS", &metrics);
            match way {
                "exec" => command.args(["--cpack", "exec", utf8(&pex)]),
                "URI" => command.args(["--cpack", "exec", &format!("file://{}", pex.display())]),
                _ => command.env("CPACK_ARTIFACT", &pex),
            };
            let stdout = succeeded(&command.args(["-c", CODE]).output().expect("starts"), name);
            assert_eq!(seen(&stdout), seen(&expected), "{name} by {way}");
        }
        let lines = std::fs::read_to_string(&metrics).expect("metrics");
        let starts: Vec<bool> = lines.lines().map(|line| line.contains("\"warm\"")).collect();
        assert_eq!(starts, [false, true, true], "{name}: {lines}");
        if !name.ends_with(".zip") {
            let stdout = succeeded(
                &world.command(&workshop.python).arg(&pex).args(["-c", CODE]).output().expect("starts"),
                name,
            );
            assert_eq!(seen(&stdout), seen(&expected), "{name} by plain Python");
        }
    }
    // As cluster-pack and `shutil` zip a directory: what is compressed once more has to be unzipped first.
    let archive =
        format!("import shutil; shutil.make_archive({:?}, 'zip', {:?})", world.path("f.pex"), world.path("b.pex"));
    succeeded(&world.command(&workshop.python).args(["-c", &archive]).output().expect("starts"), "shutil");
    let mut nested = world.command(boot());
    nested
        .args(["--cpack", "exec", utf8(&world.path("f.pex.zip")), "-c", CODE])
        .env("CPACK_CACHE_DIR", world.path("other"));
    fs::create_dir(world.path("other")).expect("creates");
    assert_eq!(seen(&succeeded(&nested.output().expect("starts"), "f.pex.zip")), seen(&expected), "zipped by shutil");
    upstreams_tools(&workshop, &world, &tools());
}

/// `PEX_TOOLS`, `pex-tools`, `pex --pex-repository` and `pex3 venv create` on the zipapp that was written.
fn upstreams_tools(workshop: &Workshop, world: &World, tools: &Path) {
    let pex = world.path("a.pex");
    let pex = utf8(&pex);
    let run = |program: &Path, arguments: &[&str], tools: bool| {
        let mut command = world.command(program);
        if tools {
            command.env("PEX_TOOLS", "1");
        }
        succeeded(&command.args(arguments).output().expect("starts"), &format!("{} {arguments:?}", program.display()))
    };
    let info: Value = serde_json::from_str(&run(&workshop.python, &[pex, "info"], true)).expect("JSON");
    assert!(info["distributions"]["app-1.0-py3-none-any.whl"].is_string(), "{info}");
    assert_eq!(info["max_install_jobs"], -1, "{info}");
    assert!(run(&tools.join("pex-tools"), &[pex, "info"], false).contains("app-1.0-py3-none-any.whl"));
    let python = |directory: &str| world.path(directory).join("bin/python");
    for (program, arguments, directory) in [
        ("pex-tools", vec![pex, "venv"], "tool-venv"),
        ("pex3", vec!["venv", "create", "--pex-repository", pex, "-d"], "create-venv"),
    ] {
        let target = world.path(directory);
        run(&tools.join(program), &[&arguments[..], &[utf8(&target)]].concat(), false);
        assert_eq!(
            run(&python(directory), &["-c", "import app.main, split_pure; print(split_pure.VALUE)"], false),
            "pure\n"
        );
        assert!(target.join("bin/app-tool").is_file(), "{program}");
    }
    let wheels = world.path("wheels");
    run(&tools.join("pex-tools"), &[pex, "repository", "extract", "-f", utf8(&wheels)], false);
    assert!(wheels.join("app-1.0-py3-none-any.whl").is_file());
    let other = world.path("other.pex");
    run(&tools.join("pex"), &["--pex-repository", pex, "app", "-o", utf8(&other)], false);
    assert_eq!(run(&workshop.python, &[utf8(&other), "-c", "import app; print(app.VERSION)"], false), "1.0\n");
}

/// Where upstream's programs are.
fn tools() -> PathBuf {
    installed("pex", &["pex"]).join("bin")
}

/// `cluster-pack pack` of the environment at `venv`, with upstream's pex on PATH.
fn pack(world: &World, venv: &Path, output: &Path, arguments: &[&str]) -> Command {
    let mut command = world.command(cluster_pack());
    command.env("PATH", format!("{}:{}", tools().display(), std::env::var("PATH").unwrap_or_default()));
    command.args(["pack", "--venv", utf8(venv), "-o", utf8(output)]).args(arguments);
    if !arguments.contains(&"--format") {
        command.args(["--format", "pex"]);
    }
    command
}

#[test]
fn settings_reach_both_runtimes() {
    let (workshop, world) = (Workshop::new(), World::new());
    let venv = environment(&workshop, &world);
    let beside = world.path("beside");
    fs::create_dir(&beside).expect("creates");
    fs::write(beside.join("outside.py"), "print('outside')\n").expect("writes");
    let import: &[&str] = &["-c", "import outside"];
    // Flags, arguments, and what is printed; none: it is refused.
    for (flags, arguments, expected) in [
        (&[][..], import, None),
        (&["--inherit-path", "fallback"], import, Some("outside\n")),
        (&["--inherit-path", "prefer"], import, Some("outside\n")),
        (&["--interpreter-constraint", "CPython>=3.9"], &["-c", "print(1)"], Some("1\n")),
        (&["--interpreter-constraint", "CPython<3.5"], &["-c", "print(1)"], None),
        (&["-e", "this"], &[], Some("The Zen of Python, by Tim Peters\n")),
        (&["-e", "app.main:run"], &["a", "b"], Some("")),
        (&["-c", "app-tool"], &["a", "b"], Some("")),
        (&["--inject-env", "GREETING=hello", "-e", "app.main:run"], &[], Some("")),
        (&["--inject-args", "--first", "-c", "app-tool"], &["second"], Some("")),
    ] {
        let pex = world.path("settings.pex");
        succeeded(&pack(&world, &venv, &pex, flags).output().expect("starts"), &format!("{flags:?}"));
        let mut plain = world.command(&workshop.python);
        plain.arg(&pex);
        let mut fast = world.command(boot());
        fast.args(["--cpack", "exec", utf8(&pex)]);
        let [plain, fast] = [plain, fast]
            .map(|mut command| command.env("PYTHONPATH", &beside).args(arguments).output().expect("starts"));
        assert_eq!(plain.status.success(), expected.is_some(), "{flags:?}: {}", text(&plain.stderr));
        assert_eq!(fast.status.success(), expected.is_some(), "{flags:?}: {}", text(&fast.stderr));
        if let Some(expected) = expected {
            let first = text(&plain.stdout);
            assert!(first.starts_with(expected), "{flags:?}: {first}");
            let line = |output| text(output).lines().filter(|line| !line.contains("settings.pex")).collect::<String>();
            assert_eq!(line(&fast.stdout), line(&plain.stdout), "{flags:?}");
        }
    }
}

#[test]
fn pex_that_no_python_can_start_is_refused_and_goes_by_another_form() {
    let (workshop, world) = (Workshop::new(), World::new());
    let venv_path = world.path("venv");
    venv_without_pip(&workshop.python, &venv_path);
    let site = install_by_hand(&venv_path, "one", "1.0", "VALUE = 1\n");
    let many = site.join("many");
    fs::create_dir(&many).expect("creates");
    for number in 0..65_535 {
        fs::write(many.join(format!("m{number}.py")), "").expect("writes");
    }
    let place = world.path("out");
    fs::create_dir(&place).expect("creates");
    let refused = pack(&world, &venv_path, &place.join("many.pex"), &["--no-byte-code"]).output().expect("starts");
    let said = text(&refused.stderr);
    assert_eq!((refused.status.code(), said.lines().count()), (Some(80), 1), "{said}");
    assert!(said.contains("65,535 entries") && said.contains(".pex.zip"), "{said}");
    assert_eq!(fs::read_dir(&place).expect("reads").count(), 0, "nothing is left behind");

    let archive = place.join("many.pex.zip");
    succeeded(&pack(&world, &venv_path, &archive, &["--no-byte-code"]).output().expect("starts"), "many.pex.zip");
    let code = ["-c", "import many.m65534, one; print(one.VALUE)"];
    let tree = place.join("tree");
    let unzip = ["-m", "zipfile", "-e", utf8(&archive), utf8(&tree)];
    succeeded(&world.command(&workshop.python).args(unzip).output().expect("starts"), "unzip");
    let mut plain = world.command(&workshop.python);
    assert_eq!(succeeded(&plain.arg(&tree).args(code).output().expect("starts"), "plain Python"), "1\n");
    let mut fast = world.command(boot());
    fast.args(["--cpack", "exec", utf8(&archive)]).args(code);
    assert_eq!(succeeded(&fast.output().expect("starts"), "cpack-boot"), "1\n");
}

#[test]
fn script_of_the_script_kind_keeps_docstring_and_future_imports() {
    let world = World::new();
    let env = installed("num2words", &["num2words==0.5.14", "docopt==0.6.2"]);
    let pex = world.path("nw.pex");
    succeeded(&pack(&world, &env, &pex, &["--format", "pex", "-c", "num2words"]).output().expect("starts"), "pack");
    for arguments in [&["42"][..], &["--help"]] {
        let plain = world.command(env.join("bin/python")).arg(&pex).args(arguments).output().expect("starts");
        let ours = world.command(boot()).args(["--cpack", "exec"]).arg(&pex).args(arguments).output().expect("starts");
        assert_eq!(succeeded(&ours, "boot"), succeeded(&plain, "python"), "{arguments:?}");
    }
}

#[test]
fn requirements_that_newer_packaging_refuses_are_left_out_and_said() {
    let (workshop, world) = (Workshop::new(), World::new());
    let env = world.path("venv");
    venv(&workshop.python, &env);
    let site = install_by_hand(&env, "thing", "1.0", "print('thing runs')\n");
    let metadata = site.join("thing-1.0.dist-info/METADATA");
    // Of celery 4.4.7, and of many.
    let odd = "Requires-Python: >=3.6.*\nRequires-Dist: pytz (>dev)\nRequires-Dist: pip\n";
    fs::write(&metadata, fs::read_to_string(&metadata).expect("reads") + odd).expect("writes");
    let pex = world.path("thing.pex");
    let output = pack(&world, &env, &pex, &["--format", "pex", "-e", "thing"]).output().expect("starts");
    let said = text(&output.stderr);
    assert!(said.contains("thing 1.0: Requires-Python: >=3.6.* and 1 more: left out of the metadata"), "{said}");
    assert!(!said.contains("told to start all the same"), "{said}");
    let plain = world.command(&workshop.python).arg(&pex).output().expect("starts");
    assert_eq!(succeeded(&plain, "python"), "thing runs\n");
    let ours = world.command(boot()).args(["--cpack", "exec"]).arg(&pex).output().expect("starts");
    assert_eq!((succeeded(&ours, "boot"), text(&ours.stderr)), ("thing runs\n".into(), String::new()));

    fs::write(&metadata, "Metadata-Version: 2.1\nName: thing\nVersion: 2004d\n").expect("writes");
    let output = pack(&world, &env, &pex, &["--format", "pex"]).output().expect("starts");
    let said = text(&output.stderr);
    assert!(!output.status.success() && said.contains("\"2004d\"") && said.contains("--ignore thing"), "{said}");
}
