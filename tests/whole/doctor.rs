//! `cluster-pack doctor`: what a submission would need, before it is needed.

use std::fs;
use std::path::Path;

use cpack_test::programs::{World, cluster_pack, text, utf8};

#[test]
fn doctor_finds_what_an_upload_would_find() {
    let world = World::new();
    let env = world.small_environment();
    let doctor = |venv: &Path, store: &Path, more: &[&str]| {
        let mut command = world.command(cluster_pack());
        command.args(["--venv", utf8(venv), "--store", utf8(store), "doctor"]).args(more);
        let output = command.output().expect("runs");
        (text(&output.stdout), output.status.code().expect("a code"))
    };
    let store = world.path("store");
    let (said, code) = doctor(&env, &store, &[]);
    assert_eq!(code, 0, "{said}");
    for line in ["✓ environment", "✓ interpreter", "✓ cpack-boot", "✓ store", "✓ clock", "✓ client's cache"]
    {
        assert!(said.lines().any(|found| found.starts_with(line)), "{line}: {said}");
    }
    assert!(!store.exists(), "nothing was made");

    let (said, code) = doctor(&world.path("nowhere"), &store, &[]);
    assert!(code == 81 && said.contains("✗ environment"), "{code}: {said}");
    let (said, code) = doctor(&env, &store, &["--boot", "/nowhere/cpack-boot"]);
    assert!(code == 80 && said.contains("/nowhere/cpack-boot"), "{code}: {said}");
    fs::write(world.path("file"), "").expect("writes");
    let (said, code) = doctor(&env, &world.path("file/store"), &[]);
    assert!(code == 87 && said.contains("✗ store"), "{code}: {said}");
}
