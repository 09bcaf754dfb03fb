//! What is sent, what is not, and what a store shows.

use std::fs;
use std::path::{Path, PathBuf};

use cpack_test::programs::{World, install_by_hand, text, usual_interpreter, utf8, venv, venv_without_pip};

fn sent(report: &serde_json::Value) -> Vec<String> {
    let layers = report["layers"].as_array().expect("layers").iter();
    layers.filter(|l| l["sent"] == true).map(|l| l["name"].as_str().expect("a name").to_owned()).collect()
}

/// An environment of `one` and `two`.
fn environment(world: &World, name: &str) -> PathBuf {
    let path = world.path(name);
    venv_without_pip(&usual_interpreter(), &path);
    install_both(&path);
    path
}

/// An environment of `one`, `two` and pip, which has scripts.
fn environment_with_pip(world: &World, name: &str) -> PathBuf {
    let path = world.path(name);
    venv(&usual_interpreter(), &path);
    install_both(&path);
    path
}

fn install_both(path: &Path) {
    install_by_hand(path, "one", "1.0", "VALUE = 1\n");
    install_by_hand(path, "two", "1.0", "VALUE = 2\n");
}

#[test]
fn upload_of_unchanged_environment_sends_and_rewrites_nothing() {
    let world = World::new();
    let env = environment(&world, "venv");
    let first = world.pack_json(&["upload", "--venv", utf8(&env), "--name", "mine"]);
    assert!(sent(&first).contains(&"one".to_owned()) && first["unchanged"] == false, "{first}");
    let artifact = world.path("store/names/mine");
    let before = fs::metadata(&artifact).and_then(|m| m.modified()).expect("the artifact");
    let second = world.pack_json(&["upload", "--venv", utf8(&env), "--name", "mine"]);
    assert!(sent(&second).is_empty() && second["unchanged"] == true && second["sent_bytes"] == 0, "{second}");
    assert_eq!(fs::metadata(&artifact).and_then(|m| m.modified()).expect("the artifact"), before);
    assert_eq!(first["environment"], second["environment"]);
    let output = world.pack(&["upload", "--venv", utf8(&env), "--name", "mine"]);
    assert_eq!(text(&output.stdout), format!("{}\n", first["uri"].as_str().expect("a URI")), "the answer alone");
    // What lies at the URI is itself executable as ./name, once a framework has made it so, beside its executable.
    let copies = world.path("container");
    fs::create_dir(&copies).expect("creates");
    let of_store = |field: &str| {
        let uri = first[field].as_str().and_then(|uri| uri.strip_prefix("file:"));
        PathBuf::from(uri.unwrap_or_else(|| panic!("{field} of {first}")))
    };
    for (from, name) in [("uri", "mine"), ("launcher", "job"), ("boot", "cpack-boot")] {
        fs::copy(of_store(from), copies.join(name)).expect("copies");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(copies.join(name), mode).expect("allows");
    }
    let start = |name: &str| {
        let code = "import os, one, two; print(one.VALUE + two.VALUE, os.environ['CPACK_LAUNCHER'], os.environ['CPACK_LAUNCHER_BOOT'])";
        let mut command = world.command(copies.join(name));
        command.env_remove("CPACK_BOOT").args(["-c", code]).output().expect("starts")
    };
    for name in ["mine", "job"] {
        let output = start(name);
        let parts = [name, "cpack-boot"].map(|name| copies.join(name).display().to_string()).join(" ");
        assert_eq!(text(&output.stdout), format!("3 {parts}\n"), "{}", text(&output.stderr));
    }
    fs::remove_file(copies.join("cpack-boot")).expect("removes");
    let output = start("job");
    let said = text(&output.stderr);
    assert_eq!((output.status.code(), said.lines().count()), (Some(80), 1), "{said}");
}

#[test]
fn upload_of_changed_distribution_sends_its_layer_alone() {
    let world = World::new();
    let env = environment(&world, "venv");
    let first = world.pack_json(&["upload", "--venv", utf8(&env)]);
    install_by_hand(&env, "two", "1.0", "VALUE = 22\n");
    let second = world.pack_json(&["upload", "--venv", utf8(&env)]);
    assert_eq!(sent(&second), ["two"]);
    assert_ne!(first["environment"], second["environment"]);
}

#[test]
fn layers_are_the_same_wherever_an_environment_lies_and_whichever_user_packs_it() {
    let world = World::new();
    let (here, there) = (environment_with_pip(&world, "here"), environment_with_pip(&world, "somewhere else/deeper"));
    let first = world.pack_json(&["upload", "--venv", utf8(&here)]);
    let second = world.pack_json(&["upload", "--venv", utf8(&there)]);
    assert_eq!(sent(&second), [""; 0], "another path, the same layers");
    assert_eq!(first["environment"], second["environment"]);
    // Another client has no memory of what it packed, but the store has.
    let cache = world.path("other client");
    let third = world.pack_json(&["upload", "--venv", utf8(&here), "--client-cache", utf8(&cache)]);
    assert_eq!((sent(&third), &third["environment"]), (Vec::new(), &first["environment"]));
}

#[test]
fn damaged_layer_is_refused_by_name_and_repaired() {
    let world = World::new();
    let env = environment(&world, "venv");
    let report = world.pack_json(&["upload", "--venv", utf8(&env)]);
    let layers = report["layers"].as_array().expect("layers");
    let one = layers.iter().find(|l| l["name"] == "one").and_then(|l| l["archive"].as_str()).expect("one's layer");
    let path = world.path(&format!("store/layers/{}/{one}.zip", &one[..2]));
    let mut bytes = fs::read(&path).expect("reads");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).expect("writes");
    let launcher = world.launcher(&env, &[]);
    let output = world.command(&launcher).args(["-c", "print('ran')"]).output().expect("starts");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(83), "{said}");
    assert!(
        output.stdout.is_empty() && said.lines().count() == 1 && said.contains("one") && said.contains("--repair"),
        "{said}"
    );
    let repaired = world.pack_json(&["upload", "--repair", "--venv", utf8(&env)]);
    assert_eq!(sent(&repaired), ["one"]);
    assert_eq!(world.run(&launcher, &["-c", "import one; print(one.VALUE)"]).trim(), "1");
}

#[test]
fn info_explains_environments_launchers_and_changes() {
    let world = World::new();
    let env = environment_with_pip(&world, "venv");
    world.pack_json(&["upload", "--venv", utf8(&env), "--name", "before"]);
    install_by_hand(&env, "three", "3.0", "");
    let launcher = world.launcher(&env, &[]);
    let shown = world.pack_json(&["info", utf8(&launcher), "--against", "before"]);
    assert_eq!(shown["changes"]["added"], serde_json::json!(["three 3.0"]));
    assert_eq!(shown["changes"]["changed"], serde_json::json!([]));
    let output = world.pack(&["info", "--venv", utf8(&env)]);
    assert!(
        text(&output.stdout).contains("Largest") && text(&output.stdout).contains("pip"),
        "{}",
        text(&output.stdout)
    );
    assert!(Path::new(&env).exists());
}
