//! What people really have in their environments: scripts, kernels, paths that are spelt in odd ways, system packages.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use cpack_test::programs::{
    World, cluster_pack, install_by_hand, leanest_interpreter, text, usual_interpreter, utf8, venv_without_pip,
};

/// Python that runs a script of its environment, and prints what that says.
pub(crate) const RUN: &str = "import subprocess, sys\nraise SystemExit(subprocess.run([sys.prefix + '/bin/' + sys.argv[1]] + sys.argv[2:]).returncode)";

fn write(path: &Path, text: &str, mode: u32) {
    fs::create_dir_all(path.parent().expect("a parent")).expect("creates");
    fs::write(path, text).expect("writes");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

#[test]
fn scripts_run_however_their_interpreter_is_spelt_and_strangers_are_told() {
    let world = World::new();
    let env = world.path("venv");
    venv_without_pip(&usual_interpreter(), &env);
    let code = "import sys\nprint(sys.prefix, sys.argv[1:])\n";
    let spelt = world.path("project/../venv/bin/python");
    write(&env.join("bin/tool"), &format!("#!{}\n{code}", spelt.display()), 0o755);
    write(&env.join("bin/old"), &format!("#!/old/venv/bin/python3.9\n{code}"), 0o755);
    let output = world.pack(&["launcher", "--venv", utf8(&env), "-o", utf8(&world.path("env-python"))]);
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    let warnings: Vec<&str> = said.lines().filter(|line| line.starts_with("warning:")).collect();
    assert_eq!(warnings.len(), 1, "{said}");
    assert!(warnings[0].contains("bin/old (#!/old/venv/bin/python3.9): the #! line leads to no Python"), "{said}");
    fs::remove_dir_all(&env).expect("removes");
    let ran = world.run(&world.path("env-python"), &["-c", RUN, "tool", "a b"]);
    assert!(ran.contains("/environments/") && ran.ends_with("['a b']\n"), "{ran}");
}

#[test]
fn kernels_and_pth_files_lead_to_the_booted_environment() {
    let world = World::new();
    let env = world.path("venv");
    venv_without_pip(&usual_interpreter(), &env);
    let site = install_by_hand(&env, "thing", "1.0", "");
    let kernel = format!(r#"{{"argv": ["{}/bin/python", "-m", "thing"], "display_name": "work"}}"#, env.display());
    write(&env.join("share/jupyter/kernels/work/kernel.json"), &kernel, 0o644);
    write(&env.join("share/modules/extra_module.py"), "", 0o644);
    write(&site.join("extra.pth"), &format!("{}/share/modules\n", env.display()), 0o644);
    write(&env.join("etc/thing.conf"), &format!("home = {}\n", env.display()), 0o644);
    let output = world.pack(&["launcher", "--venv", utf8(&env), "-o", utf8(&world.path("env-python"))]);
    let said = text(&output.stderr);
    assert!(output.status.success() && said.contains("etc/thing.conf names the environment's own path"), "{said}");
    assert!(!said.contains("kernel.json") && !said.contains("extra.pth"), "{said}");
    fs::remove_dir_all(&env).expect("removes");
    // As jupyter_client fills the fields in.
    let code = "import json, os, subprocess, sys, extra_module\n\
        spec = sys.prefix + '/share/jupyter/kernels/work'\n\
        python = json.load(open(spec + '/kernel.json'))['argv'][0].replace('{resource_dir}', spec)\n\
        found = subprocess.run([python, '-c', 'import sys; print(sys.prefix)'], capture_output=True, text=True).stdout\n\
        print(os.path.samefile(found.strip(), sys.prefix), extra_module.__file__.startswith(sys.prefix))";
    assert_eq!(world.run(&world.path("env-python"), &["-c", code]), "True True\n");
}

#[test]
fn environment_of_the_project_is_packed_and_a_systems_python_only_if_named() {
    let world = World::new();
    let project = world.path("project");
    fs::create_dir_all(project.join("src")).expect("creates");
    let python = usual_interpreter();
    venv_without_pip(&python, &project.join(".venv"));
    // The first python3 on PATH is a system's: what it is a link to may be an environment's, which it does not see.
    let folder = world.path("system/bin");
    fs::create_dir_all(&folder).expect("creates");
    symlink(&python, folder.join("python3")).expect("links");
    let pack = |directory: &Path, arguments: &[&str]| {
        let mut command = world.command(cluster_pack());
        let path = std::env::join_paths([folder.as_path(), Path::new("/usr/bin"), Path::new("/bin")]).expect("a PATH");
        command.arg("--store").arg(world.path("store")).args(arguments).current_dir(directory).env("PATH", path);
        command.output().expect("runs")
    };
    let output = pack(&project.join("src"), &["--json", "info"]);
    let said = text(&output.stderr);
    assert!(output.status.success() && said.contains("using the project's environment"), "{said}");
    let output = pack(&world.path("home"), &["info"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(81), "{said}");
    assert!(said.contains("no .venv") && said.contains("packed only if it is named: --venv"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn system_site_packages_are_hidden_seen_on_the_node_or_packed() {
    let world = World::new();
    let env = world.path("venv");
    let mut command = Command::new(leanest_interpreter());
    command.args(["-m", "venv", "--system-site-packages", "--without-pip"]).arg(&env);
    assert!(command.status().expect("starts").success());
    install_by_hand(&env, "thing", "1.0", "");
    // pip is what every interpreter of these tests has.
    let code = "import sys, thing\ntry:\n    import pip\n    print(pip.__file__.startswith(sys.prefix))\n\
        except ImportError:\n    print('hidden')";
    for (choice, expected, warns) in
        [(&[][..], "hidden\n", true), (&["node"], "False\n", false), (&["pack"], "True\n", false)]
    {
        let path = world.path("env-python");
        let flag: &[&str] = if choice.is_empty() { &[] } else { &["--system-site-packages"] };
        let arguments = [&["launcher", "--venv", utf8(&env), "-o", utf8(&path)], flag, choice].concat();
        let output = world.pack(&arguments);
        let said = text(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert_eq!(said.contains("also sees what is installed"), warns, "{choice:?}: {said}");
        assert_eq!(world.run(&path, &["-c", code]), expected, "{choice:?}");
    }
    let output = world.pack(&["upload", "--venv", utf8(&env), "--system-site-packages", "node", "--with-python"]);
    assert_eq!(output.status.code(), Some(80), "{}", text(&output.stderr));
}
