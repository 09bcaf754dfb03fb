//! Environments as archives: unpacked by Python's own tools anywhere, they work like the environment that was packed.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use cpack_test::programs::{World, install_by_hand, text, usual_interpreter, utf8, venv};

/// Unpacks a tar; extended names, links and modes are Python's affair.
pub(super) const UNTAR: &str = "import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])";

/// Unpacks a zip with its modes, which `zipfile` leaves to its callers.
pub(super) const UNZIP: &str = "import os, sys, zipfile\narchive = zipfile.ZipFile(sys.argv[1])\n\
    for entry in archive.infolist():\n    path = archive.extract(entry, sys.argv[2])\n    mode = entry.external_attr >> 16\n    \
    assert mode & 0o170000 == 0o100000, entry\n    os.chmod(path, mode & 0o777)\n";

const LARGE: usize = (5 << 20) / 2 + 7;

fn environment(world: &World) -> PathBuf {
    let env = world.path("venv");
    venv(&usual_interpreter(), &env);
    let site = install_by_hand(&env, "thing", "1.0", "import sys\nprint('thing', sys.prefix)\n");
    let long = format!("{}/{}", "d".repeat(120), "n".repeat(130));
    fs::create_dir_all(site.join("data").join("d".repeat(120))).expect("creates");
    fs::write(site.join("data").join(&long), "long").expect("writes");
    let large: Vec<u8> = (0..LARGE as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(site.join("data/large"), large).expect("writes");
    fs::write(site.join("data/empty"), "").expect("writes");
    symlink("large", site.join("data/link")).expect("links");
    edit(world, &env);
    env
}

/// Installs a project with one module as editable.
pub(super) fn edit(world: &World, env: &Path) {
    let project = world.path("edited");
    fs::create_dir_all(project.join("src")).expect("creates");
    fs::write(project.join("pyproject.toml"), "").expect("writes");
    fs::write(project.join("src/edited.py"), "WORD = 'edited'\n").expect("writes");
    let site = install_by_hand(env, "edited", "1.0", "");
    fs::remove_file(site.join("edited.py")).expect("removes");
    fs::write(site.join("edited.pth"), utf8(&project.join("src"))).expect("writes");
    let info = site.join("edited-1.0.dist-info");
    let rows = fs::read_to_string(info.join("RECORD")).expect("reads").replace("edited.py", "edited.pth");
    fs::write(info.join("RECORD"), rows + "edited-1.0.dist-info/direct_url.json,,\n").expect("writes");
    let url = format!(r#"{{"url": "file://{}", "dir_info": {{"editable": true}}}}"#, project.display());
    fs::write(info.join("direct_url.json"), url).expect("writes");
}

/// Packs `env` to `name` and unpacks that with `code`.
fn unpacked(world: &World, env: &Path, name: &str, code: &str) -> PathBuf {
    let archive = world.path(name);
    let output = world.pack(&["pack", "--venv", utf8(env), "-o", utf8(&archive)]);
    assert!(output.status.success(), "{name}: {}", text(&output.stderr));
    let tree = world.path(&format!("{name} unpacked"));
    world.run(&usual_interpreter(), &["-c", code, utf8(&archive), utf8(&tree)]);
    tree
}

/// Checks that the environment in `tree` works like the one that was packed.
fn check(world: &World, tree: &Path) {
    let python = tree.join("bin/python");
    // Before Python runs, which would write it.
    let lib = fs::read_dir(tree.join("lib")).expect("lib").flatten().next().expect("a version").path();
    let compiled = fs::read_dir(lib.join("site-packages/__pycache__")).expect("byte-code").flatten();
    let names: Vec<_> = compiled.map(|entry| text(entry.file_name().as_encoded_bytes())).collect();
    for module in ["thing.", "edited."] {
        assert!(names.iter().any(|name| name.starts_with(module) && name.ends_with(".pyc")), "{module}: {names:?}");
    }
    let code = "import edited, os, pip, sys, thing\ndata = os.path.join(os.path.dirname(thing.__file__), 'data')\n\
                large = open(os.path.join(data, 'link'), 'rb').read()\n\
                assert large == open(os.path.join(data, 'large'), 'rb').read()\n\
                assert open(os.path.join(data, 'd' * 120, 'n' * 130)).read() == 'long'\n\
                assert open(os.path.join(data, 'empty')).read() == ''\n\
                print(edited.WORD, len(large), pip.__file__.startswith(sys.prefix))\n";
    let said = world.run(&python, &["-c", code]);
    assert_eq!(said, format!("thing {}\nedited {LARGE} True\n", tree.display()));
    // By another name, and by a script that looks for the interpreter beside itself.
    assert_eq!(world.run(&tree.join("bin/python3"), &["-c", "import thing"]), format!("thing {}\n", tree.display()));
    let pip = world.run(&tree.join("bin/pip"), &["--version"]);
    assert!(pip.contains(&format!("from {}", tree.display())), "{pip}");
    let mode = fs::metadata(tree.join("bin/pip")).expect("pip").permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
}

#[test]
fn unpacked_tar_gz_works_anywhere() {
    let world = World::new();
    let env = environment(&world);
    let tree = unpacked(&world, &env, "env.tar.gz", UNTAR);
    check(&world, &tree);
    assert!(fs::read_link(tree.join("lib64")).is_ok_and(|target| target == Path::new("lib")));
    // The same environment gives the same bytes.
    let first = fs::read(world.path("env.tar.gz")).expect("reads");
    unpacked(&world, &env, "again.tgz", UNTAR);
    assert_eq!(fs::read(world.path("again.tgz")).expect("reads"), first);
}

#[test]
fn unpacked_zip_works_anywhere_and_has_no_links() {
    let world = World::new();
    let env = environment(&world);
    check(&world, &unpacked(&world, &env, "env.zip", UNZIP));
}

#[test]
fn tar_zst_holds_same_tar_as_tar_gz() {
    let world = World::new();
    let env = environment(&world);
    unpacked(&world, &env, "env.tar.gz", UNTAR);
    let archive = world.path("env.tar.zst");
    let output = world.pack(&["pack", "--venv", utf8(&env), "-o", utf8(&archive)]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let plain = zstd::decode_all(fs::File::open(&archive).expect("opens")).expect("is Zstandard");
    let code = "import gzip, sys; open(sys.argv[2], 'wb').write(gzip.open(sys.argv[1]).read())";
    let tar = world.path("plain.tar");
    world.run(&usual_interpreter(), &["-c", code, utf8(&world.path("env.tar.gz")), utf8(&tar)]);
    assert!(plain == fs::read(tar).expect("reads"), "two tars");
}

#[test]
fn archive_replaces_file_and_no_directory() {
    let world = World::new();
    let env = world.small_environment();
    fs::create_dir(world.path("env.tar.gz")).expect("creates");
    let output = world.pack(&["pack", "--venv", utf8(&env), "-o", utf8(&world.path("env.tar.gz"))]);
    assert_eq!(output.status.code(), Some(80), "{}", text(&output.stderr));
    fs::remove_dir(world.path("env.tar.gz")).expect("removes");
    fs::write(world.path("env.tar.gz"), "old").expect("writes");
    unpacked(&world, &env, "env.tar.gz", UNTAR);
    let left = fs::read_dir(world.path("env.tar.gz").parent().expect("a parent")).expect("lists").flatten();
    let left: Vec<_> =
        left.map(|entry| entry.file_name()).filter(|name| text(name.as_encoded_bytes()).contains("tmp")).collect();
    assert_eq!(left, [] as [std::ffi::OsString; 0]);
}
