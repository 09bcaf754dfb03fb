//! Bad input: one line that says what is wrong, where, and what to do, and the exit code of the table.

use std::fs;

use cpack_test::programs::{
    World, cluster_pack, install_by_hand, text, usual_interpreter, utf8, venv, venv_without_pip,
};

#[test]
fn bad_command_lines_get_one_line_and_their_code() {
    let world = World::new();
    let env = world.path("venv");
    venv(&usual_interpreter(), &env);
    let no_boot = world.path("no-boot");
    fs::write(&no_boot, "#!/bin/sh\n").expect("writes");
    let env = utf8(&env);
    for (arguments, code, needle) in [
        (&["upload", "--venv", "/nowhere"][..], 81, "/nowhere"),
        (&["upload", "--venv", "/etc"], 81, "/etc"),
        (&["upload", "--venv", env, "--name", "a/b"], 80, "name"),
        (&["upload", "--venv", env, "--only", "piip"], 80, "pip"),
        (&["upload", "--venv", env, "--script", "pipp"], 80, "pip"),
        (&["upload", "--venv", env, "--boot", "/nowhere/boot"], 80, "/nowhere/boot"),
        (&["upload", "--venv", env, "--boot", utf8(&no_boot)], 80, "ELF"),
        (&["upload", "--venv", env, "--env", "TOKEN=abc"], 80, "never go into a store"),
        (&["launcher", "--venv", env, "-o", "/"], 80, "directory"),
        (&["info", "unknown-name"], 84, "unknown-name"),
    ] {
        let output = world.pack(arguments);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        let errors: Vec<_> = said.lines().filter(|l| l.starts_with("error:")).collect();
        assert!(errors.len() == 1 && errors[0].contains(needle), "{arguments:?}: {said}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn bad_stores_get_one_line_and_their_code() {
    let world = World::new();
    let env = world.small_environment();
    let file = world.path("a-file");
    fs::write(&file, "").expect("writes");
    for (store, code, needle) in [
        ("ftp://host/x", 80, "unknown scheme"),
        ("s3://", 80, "bucket"),
        ("s3://key:secret@bucket/x", 80, "credentials"),
        ("/proc/store", 86, "/proc/store"),
        (utf8(&file), 86, "a-file"),
    ] {
        let output = world.command(cluster_pack()).args(["upload", "--venv", utf8(&env), "--store", store]).output();
        let output = output.expect("runs");
        let said = text(&output.stderr);
        let errors: Vec<_> = said.lines().filter(|l| l.starts_with("error:")).collect();
        assert!(errors.len() == 1 && errors[0].contains(needle) && !said.contains("secret"), "{store}: {said}");
        assert!(
            output.status.code().is_some_and(|c| c == code || (84..=87).contains(&c) && code == 86),
            "{store}: {said}"
        );
    }
}

/// A module `thing`, which prints its arguments.
const THING: &str = "import sys\nif __name__ == '__main__':\n    print('module', sys.argv[1:])\n";

#[test]
fn launcher_runs_every_form_of_program_that_python_takes() {
    let world = World::new();
    let env = world.path("venv");
    venv_without_pip(&usual_interpreter(), &env);
    install_by_hand(&env, "thing", "1.0", THING);
    let launcher = world.launcher(&env, &[]);
    let shell = |script: &str| {
        let output = world.command("sh").arg("-c").arg(script).env("P", &launcher).output().expect("runs");
        assert!(output.status.success(), "{script}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    assert_eq!(shell("echo 'import sys; print(sys.argv)' | \"$P\""), "['']\n");
    assert_eq!(shell("echo 'print(1)' | \"$P\" -"), "1\n");
    assert_eq!(shell("\"$P\" <<'E'\nprint(input.__name__)\nE"), "input\n");
    assert_eq!(shell("echo data | \"$P\" -c 'print(input())'"), "data\n");
    assert_eq!(shell("echo 'print(2)' > s.py; \"$P\" s.py"), "2\n");
    assert_eq!(shell("\"$P\" -m thing -x --cpack"), "module ['-x', '--cpack']\n");
    assert_eq!(shell("\"$P\" -c 'import os,sys; sys.exit(os.getpid() != int(sys.argv[1]) and 0)' 0"), "");
    assert_eq!(shell("ln -s \"$P\" other; ./other -c 'print(3)'"), "3\n");
    let code = world.command(&launcher).args(["-c", "import sys; sys.exit(7)"]).status().expect("runs").code();
    assert_eq!(code, Some(7));
}

#[test]
fn entries_of_jobs_run_and_can_be_overridden() {
    let world = World::new();
    let env = world.path("venv");
    venv(&usual_interpreter(), &env);
    install_by_hand(&env, "thing", "1.0", THING);
    let module = world.launcher(&env, &["-m", "thing"]);
    assert_eq!(world.run(&module, &["a", "-b"]), "module ['a', '-b']\n");
    let output =
        world.command(&module).args(["-c", "print('python')"]).env("CPACK_INTERPRETER", "1").output().expect("runs");
    assert_eq!(text(&output.stdout), "python\n");
    let script = world.launcher(&env, &["--script", "pip"]);
    assert!(world.run(&script, &["--version"]).starts_with("pip "));
    let payload = world.path("payload.pkl");
    let code = "import pickle, sys; pickle.dump({'func': print, 'args': ['called', 3]}, open(sys.argv[1], 'wb'))";
    world.run(&env.join("bin/python"), &["-c", code, utf8(&payload)]);
    let launcher = world.launcher(&env, &["--payload", utf8(&payload)]);
    assert_eq!(world.run(&launcher, &[]), "called 3\n");
    let needy = world.launcher(&env, &["--env", "NEEDED", "--env", "GIVEN=1"]);
    let output = world.command(&needy).args(["-c", ""]).output().expect("runs");
    assert!(!output.status.success() && text(&output.stderr).contains("NEEDED"), "{}", text(&output.stderr));
    let print = "import os; print(os.environ['GIVEN'], os.environ['NEEDED'])";
    let output = world.command(&needy).args(["-c", print]).env("NEEDED", "2").output().expect("runs");
    assert_eq!(text(&output.stdout), "1 2\n");
}

#[test]
fn submissions_warn_if_other_machines_do_not_see_the_store() {
    let world = World::new();
    let env = world.small_environment();
    let warns = |options: &[&str], arguments: &[&str]| {
        let mut command = world.command(cluster_pack());
        let output = command.args(["--venv", utf8(&env)]).args(options).args(arguments).output().expect("runs");
        let error = text(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {error}");
        error.contains("warning: no store is named, and other machines do not see")
    };
    let yarn = ["spark", "conf", "--master", "yarn"];
    let pod = ["kubernetes", "job", "--image", "i", "--boot-path", "/cpack-boot"];
    for arguments in [&yarn[..], &["spark", "conf", "--master", "k8s://https://c:6443"], &["skein", "spec"], &pod] {
        assert!(warns(&[], arguments), "{arguments:?}");
    }
    assert!(!warns(&[], &["spark", "conf", "--master", "local[2]"]));
    assert!(!warns(&["--store", utf8(&world.path("store"))], &yarn));
}
