//! PEX files that cluster-pack publishes and writes: under both runtimes, and in the hands of upstream's tools.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::Workshop;
use crate::programs::{World, boot, cluster_pack, installed, text, utf8, venv};

const CODE: &str = "from app.report import report; report('code')";

fn succeeded(output: &Output, what: &str) -> String {
    assert!(output.status.success(), "{what}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// What a report says, but for what is named by where it lies.
fn seen(stdout: &str) -> Value {
    let mut report: Value = serde_json::from_str(stdout).expect(stdout);
    let fields = report.as_object_mut().expect("an object");
    for field in ["environ", "argv", "virtual_env", "bin_on_path", "pex_variables"] {
        fields.remove(field);
    }
    report
}

#[test]
fn a_pex_is_published_in_layers_and_its_next_version_sends_what_changed() {
    let (workshop, world) = (Workshop::new(), World::new());
    let build = |name: &str, more: &[&str]| -> PathBuf {
        let repository = workshop.at("repository.pex");
        let from = ["--pex-repository", utf8(&repository), "app"];
        workshop.build(&[&from[..], more, &["-m", "app.main:run"]].concat(), name);
        workshop.at(name)
    };
    let (first, second) = (build("published.pex", &[]), build("published-2.pex", &["split"]));
    let sent = |report: &Value| -> Vec<String> {
        let layers = report["layers"].as_array().expect("layers").iter().filter(|layer| layer["sent"] == true);
        layers.map(|layer| layer["name"].as_str().expect("a name").to_owned()).collect()
    };
    let upload = |pex: &Path| world.pack_json(&["--name", "published", "upload", utf8(pex)]);
    let report = upload(&first);
    assert!(sent(&report).iter().any(|name| name == "app"), "{report}");
    let metadata = report["metadata"].as_str().expect("metadata").trim_start_matches("file:").to_owned();
    let metadata = std::fs::read_to_string(metadata.trim_start_matches("//")).expect("reads");
    assert!(metadata.contains("app==1.0") && metadata.contains("python_version"), "{metadata}");
    let again = upload(&first);
    assert_eq!((sent(&again), &again["unchanged"]), (Vec::new(), &true.into()));
    assert_eq!(sent(&upload(&second)), ["split"]);
    // What lies there starts what the PEX starts.
    let output = world.path("launcher");
    succeeded(&world.pack(&["launcher", utf8(&first), "-o", utf8(&output)]), "launcher");
    let own = world.command(&output).args(["--fail", "x"]).output().expect("starts");
    let plain = world.command(&workshop.python).arg(&first).args(["--fail", "x"]).output().expect("starts");
    assert_eq!((own.status.code(), seen(&text(&own.stdout))), (plain.status.code(), seen(&text(&plain.stdout))));
    let info = world.pack_json(&["info", utf8(&first)]);
    assert_eq!((&info["pex"]["layout"], &info["pex"]["starts"]), (&"zipapp".into(), &"app.main:run".into()));
    assert!(info["parts"].as_array().expect("parts").iter().any(|part| part["name"] == "app"), "{info}");
    assert!(succeeded(&world.pack(&["info", utf8(&first)]), "info").contains("zipapp, starts app.main:run"));
    let damaged = world.path("damaged.pex");
    std::fs::write(&damaged, "#!/bin/sh\n").expect("writes");
    for command in [&["upload"][..], &["info"]] {
        let output = world.pack(&[command, &[utf8(&damaged)]].concat());
        assert_eq!(
            (output.status.code(), text(&output.stderr).lines().count()),
            (Some(83), 1),
            "{}",
            text(&output.stderr)
        );
    }
}

#[test]
fn byte_code_is_kept_for_the_next_start() {
    use std::os::unix::fs::PermissionsExt as _;
    let (workshop, world) = (Workshop::new(), World::new());
    let code = "import app, os; print(os.path.dirname(app.__file__))";
    let mut command = world.command(boot());
    command.args(["--cpack", "exec"]).arg(workshop.at("repository.pex")).args(["-c", code]);
    let stdout = succeeded(&command.output().expect("starts"), "repository.pex");
    let app = PathBuf::from(stdout.trim());
    let mode = |path: &Path| std::fs::metadata(path).expect("stat").permissions().mode() & 0o777;
    assert_eq!((mode(&app), mode(&app.join("__pycache__"))), (0o555, 0o755));
    assert_eq!(std::fs::read_dir(app.join("__pycache__")).expect("reads").count(), 1);
}

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
fn what_is_written_runs_everywhere_and_upstreams_tools_take_it() {
    let (workshop, world) = (Workshop::new(), World::new());
    let venv = environment(&workshop, &world);
    let tools = installed("pex", &["pex"]).join("bin");
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap_or_default());
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
        let mut pack = world.command(cluster_pack());
        pack.env("PATH", &path).args(["pack", "--format", format, "--venv", utf8(&venv), "-o", utf8(&pex)]);
        succeeded(&pack.output().expect("starts"), name);
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
    upstreams_tools(&workshop, &world, &tools);
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
