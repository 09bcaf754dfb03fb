//! Lazy starts of real environments: as installed, and plain and warm afterwards. They need `/dev/fuse` and user namespaces.

use std::fs;
use std::path::Path;

use cpack_test::programs::{World, install_by_hand, succeeded, text, usual_interpreter, venv};

use crate::equality::{assert_same, describe};

/// Runs a program that starts lazily, and returns its standard output.
fn lazily(world: &World, program: &Path, fill: &str, arguments: &[&str]) -> String {
    let mut command = world.command(program);
    command.args(arguments).env("CPACK_START", "lazy").env("CPACK_FILL", fill).env("CPACK_LOG", "1");
    let output = command.output().expect("starts");
    let said = text(&output.stderr);
    assert!(said.contains("cpack-boot: lazy start in "), "{said}");
    succeeded(&output, &format!("{arguments:?}"))
}

/// Waits until the environment is in the node cache, at most two minutes.
fn wait_for_environment(world: &World) {
    let built = || {
        let caches = fs::read_dir(world.path("node")).into_iter().flatten().flatten();
        caches
            .map(|cache| cache.path().join("environments"))
            .any(|all| fs::read_dir(all).is_ok_and(|mut all| all.next().is_some()))
    };
    for _ in 0..12_000 {
        if built() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(built(), "the environment was not built behind the lazy start");
}

#[test]
fn lazy_start_of_a_venv_is_as_installed_and_the_next_one_is_plain() {
    let world = World::new();
    let env = world.path("a venv");
    venv(&usual_interpreter(), &env);
    install_by_hand(&env, "handmade", "1.0", "def value():\n    return 42\n");
    let launcher = world.launcher(&env, &[]);
    let code =
        "import handmade, sys; print(handmade.value(), handmade.__cached__ is not None, '/served/' in sys.prefix)";
    assert_eq!(lazily(&world, &launcher, "off", &["-c", code]), "42 True True\n");
    assert!(lazily(&world, &launcher, "off", &["-m", "pip", "--version"]).starts_with("pip "));
    let python = world.path("lazy-python");
    let script = format!("#!/bin/sh\nCPACK_START=lazy CPACK_FILL=full exec '{}' \"$@\"\n", launcher.display());
    cpack_test::small_world::write_executable(&python, script.as_bytes());
    assert_same(&describe(&world, &env.join("bin/python")), &describe(&world, &python));
    wait_for_environment(&world);
    let mut warm = world.command(&launcher);
    let output = warm.args(["-c", code]).env("CPACK_START", "lazy").env("CPACK_LOG", "1").output().expect("starts");
    assert!(text(&output.stderr).contains("warm start in"), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "42 True False\n");
}

#[test]
fn upload_traces_a_run_and_every_way_of_making_a_job_takes_the_trace() {
    let world = World::new();
    let env = world.path("venv");
    venv(&usual_interpreter(), &env);
    install_by_hand(&env, "handmade", "1.0", "def value():\n    return 42\n");
    install_by_hand(&env, "other", "1.0", "VALUE = 1\n");
    let venv = env.to_str().expect("UTF-8");
    let code = "import handmade; print(handmade.value())";
    let traced = ["upload", "--venv", venv, "--start", "lazy", "--trace-file", "trace", "--trace", "--", "-c", code];
    let output = world.pack(&traced);
    let (out, said) = (succeeded(&output, "upload --trace"), text(&output.stderr));
    // Standard output is the URI alone; what the run prints is beside it.
    assert!(out.starts_with("file:") && out.lines().count() == 1, "{out}");
    assert!(said.contains("42\n") && said.contains("the trace needs "), "{said}");
    let trace = fs::read_to_string(world.path("trace")).expect("a trace");
    assert!(trace.contains("/handmade.py") || trace.contains("/handmade.cpython"), "{trace}");
    assert!(!trace.contains("other"), "{trace}");

    let info = |launcher: &Path| -> serde_json::Value {
        let said = world.run(launcher, &["--cpack", "info", "--json"]);
        serde_json::from_str(&said).expect("JSON")
    };
    let by_upload = info_of_job(&world, out.trim());
    let launcher = world.launcher(&env, &["--start", "auto", "--trace-file", "trace"]);
    let by_launcher = info(&launcher);
    assert_eq!(by_upload["job"]["trace"], by_launcher["job"]["trace"]);
    assert!(by_upload["job"]["trace"].as_array().is_some_and(|pieces| !pieces.is_empty()), "{by_upload}");
    assert_eq!((&by_upload["job"]["start"], &by_launcher["job"]["start"]), (&"lazy".into(), &"auto".into()));
    // Two jobs with and without a trace share all that is on a node.
    assert_eq!(by_upload["job"]["environment"], info(&world.launcher(&env, &[]))["job"]["environment"]);

    // A layer that is another one now has no trace.
    install_by_hand(&env, "handmade", "1.0", "def value():\n    return 43\n");
    let output = world.pack(&["launcher", "--venv", venv, "-o", "later", "--trace-file", "trace"]);
    succeeded(&output, "launcher");
    assert!(text(&output.stderr).contains("the trace is of other versions of handmade: "), "{}", text(&output.stderr));

    let failing =
        world.pack(&["upload", "--venv", venv, "--name", "failing", "--trace", "--", "-c", "raise SystemExit(3)"]);
    assert_eq!((failing.status.code(), text(&failing.stdout)), (Some(80), String::new()));
    assert!(text(&failing.stderr).contains("ended with code 3"), "{}", text(&failing.stderr));
    assert!(!world.path("store/names/failing").exists());
}

/// What a job without its executable says of itself.
fn info_of_job(world: &World, job: &str) -> serde_json::Value {
    let mut command = world.command(cpack_test::programs::boot());
    let output = command.args(["--cpack", "info", "--json"]).env("CPACK_JOB", job).output().expect("starts");
    serde_json::from_str(&succeeded(&output, "info")).expect("JSON")
}

#[cfg(feature = "index")]
#[test]
fn lazy_start_runs_numpy_and_its_tests_while_it_fills() {
    let world = World::new();
    let env = cpack_test::programs::installed("numpy", &["numpy", "pytest", "hypothesis"]);
    let launcher = world.launcher(&env, &[]);
    let code = "import numpy; print(numpy.arange(10).sum(), '/served/' in numpy.__file__)";
    assert_eq!(lazily(&world, &launcher, "off", &["-c", code]), "45 True\n");
    let pytest = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--pyargs", "numpy.linalg"];
    let said = lazily(&world, &launcher, "full", &pytest);
    assert!(said.contains(" passed") && !said.contains(" failed"), "{said}");
    wait_for_environment(&world);
    assert_eq!(world.run(&launcher, &["-c", code]), "45 False\n");
}
