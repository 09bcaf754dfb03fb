//! Shapes, hashes and the scripts that start a PEX. What upstream's runtime makes of one is tested with both programs.

use std::process::Command;

use cpack_format::SafePath;
use cpack_format::content::Kind;
use cpack_layer::archive::{Body, Codec, Entry};
use cpack_pex::info::PexInfo;

use super::*;

fn entry(path: &str, bytes: &[u8]) -> Entry {
    let path = SafePath::new(path.as_bytes()).expect("safe");
    Entry { path, kind: Kind::File, body: Body::Bytes(bytes.to_vec()) }
}

#[test]
fn the_names_of_optimizations_stand_for_shapes() {
    let of = |name| Shape::of_optimization(name).map(|shape| (shape.layout, shape.zipped, shape.codec));
    assert_eq!(of("SLOW_FAST_SMALL"), Some((Layout::Packed, true, Codec::Deflate(6))));
    assert_eq!(of("fast_mid_big"), Some((Layout::Loose, true, Codec::Store)));
    assert_eq!(of("MID_SLOW_SMALL"), Some((Layout::Loose, true, Codec::Deflate(1))));
    assert_eq!(of("DISABLED"), Some((Layout::Zipapp, false, Codec::Deflate(6))));
    assert_eq!(of("FASTEST"), None);
}

#[test]
fn hashes_are_upstreams() {
    // sha256(b"a/b.pya.txt" + b"A" + b"BB"), with the paths in the order of their characters.
    let entries = [entry("a.txt", b"BB"), entry("a/b.py", b"A"), entry("a/__pycache__/b.cpython-311.pyc", b"x")];
    let expected = "sha256 of the joined paths, then of the bytes";
    let python = "import hashlib; print(hashlib.sha256(b'a.txta/b.py' + b'BB' + b'A').hexdigest())";
    let output = Command::new("python3").args(["-c", python]).output().expect("python3 runs");
    assert_eq!(hash::sha256(&entries).expect("hashes"), String::from_utf8_lossy(&output.stdout).trim(), "{expected}");
    assert_eq!(hash::sha1(&[entry(".hidden", b"x")]).expect("hashes"), hash::of_bytes(b""));
}

#[test]
fn the_boot_script_is_told_about_this_pex() {
    let template = "def boot(\n    pex_hash,\n):\n    pass\n\nresult = boot(\n    bootstrap_dir='.bootstrap',\n    pex_root='~/.cache/pex',\n    pex_hash='old',\n    hermetic_boot=True,\n    is_venv=False,\n    inject_python_args=(),\n)\nexit()\n";
    let info = PexInfo {
        pex_hash: Some("new".into()),
        venv: true,
        venv_hermetic_scripts: false,
        inject_python_args: vec!["-X".into(), "a\"b".into()],
        ..PexInfo::default()
    };
    let expected = "def boot(\n    pex_hash,\n):\n    pass\n\nresult = boot(\n    bootstrap_dir='.bootstrap',\n    pex_root='~/.cache/pex',\n    pex_hash=\"new\",\n    hermetic_boot=False,\n    is_venv=True,\n    inject_python_args=(\"-X\",\"a\\\"b\",),\n)\nexit()\n";
    assert_eq!(start::boot_script(template, &info).as_deref(), Some(expected));
    assert_eq!(start::boot_script("print(1)\n", &info), None);
}

/// Runs the head of a zipapp by `sh`, with these programs on PATH and beside it; tells what was run.
fn run_head(on_path: &[&str], beside: &[&str], variables: &[(&str, &str)]) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("path");
    let place = directory.path().join("it is here");
    for (at, names) in [(&path, on_path), (&place, beside)] {
        std::fs::create_dir(at).expect("creates");
        for name in names {
            let program = at.join(name);
            let kind = if at == &path { "path" } else { "beside" };
            std::fs::write(&program, format!("#!/bin/sh\necho {kind} {name} \"$@\"\n")).expect("writes");
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("may be executed");
        }
    }
    let pex = place.join("my.pex");
    std::fs::write(&pex, [&start::head("3.11")[..], b"PK\x03\x04 \x00 (((\n"].concat()).expect("writes");
    let mut command = Command::new("/bin/sh");
    command.arg(&pex).args(["a b", "-c"]).env_clear().env("PATH", &path).envs(variables.iter().copied());
    let output = command.output().expect("runs");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    text.trim().replace(&*pex.to_string_lossy(), "PEX")
}

#[test]
fn sh_takes_the_fast_way_where_it_is_at_hand() {
    for (on_path, beside, variables, expected) in [
        (&["cpack-boot", "python3"][..], &[][..], &[][..], "path cpack-boot --cpack exec PEX a b -c"),
        (&["python3"], &["cpack-boot"], &[], "beside cpack-boot --cpack exec PEX a b -c"),
        (&["python3", "other"], &["cpack-boot"], &[("CPACK_BOOT", "other")], "path other --cpack exec PEX a b -c"),
        (&["python3", "cpack-boot"], &["cpack-boot"], &[("CPACK_BOOT", "")], "path python3 PEX a b -c"),
        (&["python3", "cpack-boot"], &[], &[("PEX_TOOLS", "1")], "path python3 PEX a b -c"),
        (&["python", "python3.11"], &[], &[], "path python3.11 PEX a b -c"),
        (&[], &[], &[], "PEX: no python3.11, python3 or python on PATH"),
    ] {
        assert_eq!(run_head(on_path, beside, variables), expected, "{on_path:?} {beside:?} {variables:?}");
    }
}
