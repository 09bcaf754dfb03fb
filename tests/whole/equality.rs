//! What runs from the node cache is what is installed: the same distributions, scripts, data files and behaviour.

use std::path::Path;

use cpack_test::programs::{World, install_by_hand, interpreters, venv};

/// Everything that `importlib.metadata` and the file system tell about what is installed, without paths of the prefix.
const DESCRIBE: &str = r#"
import hashlib, importlib.metadata as m, json, os, sys
prefix = sys.prefix
relocated = lambda path: path.startswith("bin/")
def digest(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()
out = {"version": sys.version, "base": sys.base_prefix, "dists": {}, "files": {}}
for d in m.distributions():
    name = d.metadata["Name"]
    entry_points = sorted((e.group, e.name, e.value) for e in d.entry_points)
    out["dists"][name.lower()] = [d.version, entry_points, sorted(d.requires or [])]
skip = ("RECORD", "direct_url.json", "uv_cache.json")
venv_own = ("pyvenv.cfg", ".complete", ".gitignore", "CACHEDIR.TAG", ".lock")
for base, dirs, files in os.walk(prefix):
    dirs[:] = [d for d in dirs if d not in ("__pycache__", ".cpack", "include", "lib64")]
    for name in files:
        path = os.path.join(base, name)
        short = os.path.relpath(path, prefix)
        own = short in venv_own or name == "_cpack_overlays.pth" or short.startswith(("bin/python", "bin/activate", "bin/Activate"))
        if own or name in skip:
            continue
        out["files"][short] = "script" if relocated(short) else digest(path)
print(json.dumps(out, sort_keys=True))
"#;

pub(crate) fn describe(world: &World, python: &Path) -> serde_json::Value {
    serde_json::from_str(&world.run(python, &["-I", "-c", DESCRIBE])).expect("JSON")
}

/// Compares part by part, so that a difference names the file.
pub(crate) fn assert_same(there: &serde_json::Value, here: &serde_json::Value) {
    for part in ["version", "base"] {
        assert_eq!(there[part], here[part]);
    }
    for part in ["dists", "files"] {
        let (there, here) = (there[part].as_object().expect("a map"), here[part].as_object().expect("a map"));
        assert!(!there.is_empty());
        for (name, value) in there {
            assert_eq!(Some(value), here.get(name), "{part}: {name} in the environment, and as booted");
        }
        for name in here.keys() {
            assert!(there.contains_key(name), "{part}: {name} is booted, but not in the environment");
        }
    }
}

#[test]
fn every_interpreter_of_this_machine_boots_its_environment() {
    let all = interpreters();
    eprintln!("interpreters: {}", all.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", "));
    for python in all {
        let world = World::new();
        let env = world.path("a venv");
        venv(&python, &env);
        install_by_hand(&env, "handmade", "1.0", "def value():\n    return 42\n");
        let launcher = world.launcher(&env, &[]);
        assert_same(&describe(&world, &env.join("bin/python")), &describe(&world, &launcher));
        let code = "import handmade, sys; print(handmade.value(), handmade.__cached__ is not None, sys.prefix != sys.base_prefix)";
        assert_eq!(world.run(&launcher, &["-c", code]).trim(), "42 True True", "{}", python.display());
        assert!(world.run(&launcher, &["-m", "pip", "--version"]).starts_with("pip "), "{}", python.display());
    }
}
