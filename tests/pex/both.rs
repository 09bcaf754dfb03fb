//! PEX files of upstream that cluster-pack publishes, and what is kept of those that start.

use std::path::{Path, PathBuf};

use cpack_test::programs::{World, boot, succeeded, text, utf8};
use serde_json::Value;

use crate::Workshop;

pub(crate) const CODE: &str = "from app.report import report; report('code')";

/// What a report says, but for what is named by where it lies.
pub(crate) fn seen(stdout: &str) -> Value {
    let mut report: Value = serde_json::from_str(stdout).expect(stdout);
    let fields = report.as_object_mut().expect("an object");
    for field in ["environ", "argv", "virtual_env", "bin_on_path", "pex_variables"] {
        fields.remove(field);
    }
    report
}

#[test]
fn pex_is_published_in_layers_and_next_version_sends_what_changed() {
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
fn pex_start_keeps_byte_code_for_next_start() {
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
