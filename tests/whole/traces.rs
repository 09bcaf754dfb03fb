//! `CPACK_TRACE`: what both programs did, one event per line, in a file that Perfetto opens.

use std::collections::BTreeMap;
use std::fs;

use cpack_test::programs::{World, cluster_pack, install_by_hand, usual_interpreter, utf8, venv_without_pip};

#[test]
fn trace_has_events_of_both_programs() {
    let world = World::new();
    let env = world.path("venv");
    venv_without_pip(&usual_interpreter(), &env);
    install_by_hand(&env, "handmade", "1.0", "def value():\n    return 42\n");
    let (trace, launcher) = (world.path("trace.json"), world.path("env-python"));
    let arguments = ["launcher", "--venv", utf8(&env), "-o", utf8(&launcher), "--env", "PLANTED=secret-value"];
    let mut pack = world.command(cluster_pack());
    pack.arg("--store").arg(world.path("store")).args(arguments).env("CPACK_TRACE", &trace);
    assert!(pack.output().expect("runs").status.success());
    for _ in ["cold", "warm"] {
        let mut start = world.command(&launcher);
        let output = start.env("CPACK_TRACE", &trace).args(["-c", "print(1)"]).output().expect("starts");
        assert_eq!((output.stdout, output.stderr), (b"1\n".to_vec(), Vec::new()));
    }
    let text = fs::read_to_string(&trace).expect("a trace");
    assert!(!text.contains("secret-value"));
    // The closing bracket is left out, as the format allows.
    let array = format!("{}]", text.trim_end().trim_end_matches(','));
    let events: Vec<serde_json::Value> = serde_json::from_str(&array).expect("JSON");
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for event in &events {
        *kinds.entry(event["cat"].as_str().expect("a category")).or_default() += 1;
        assert!(event["ts"].is_number() && event["pid"].is_number(), "{event}");
    }
    for kind in ["discover", "pack", "compress", "send", "boot", "fetch", "verify", "decode", "write", "wait"] {
        assert!(kinds.contains_key(kind), "{kind}: {kinds:?}");
    }
    let processes: Vec<_> = events.iter().filter(|e| e["ph"] == "M").map(|e| &e["args"]["name"]).collect();
    assert_eq!(processes, ["cluster-pack", "cpack-boot", "cpack-boot"]);
}
