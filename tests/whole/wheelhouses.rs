//! Wheelhouses, as directories and zips: started as they are, and packed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use cpack_test::programs::{World, boot, cluster_pack, succeeded, text, usual_interpreter, utf8, venv};

use crate::archives::edit;

/// Makes the wheels of a wheelhouse: `thing` with all that a wheel can have, which needs `other`.
const MAKE: &str = r##"
import os, sys, zipfile
def wheel(name, version, files, tag="py3-none-any", metadata=""):
    info = f"{name}-{version}.dist-info"
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{metadata}"
    files[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n"
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(os.path.join(sys.argv[1], f"{name}-{version}-{tag}.whl"), "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in files.items():
            archive.writestr(path, text)
os.makedirs(sys.argv[1])
wheel("thing", "1.0", {
    "thing/__init__.py": "import other\ndef main():\n    print('main', other.WORD)\n",
    "thing/data.txt": "text",
    "thing-1.0.data/scripts/old-tool": "#!python\nimport thing\nprint('script', thing.other.WORD)\n",
    "thing-1.0.data/data/etc/thing.conf": "setting",
    "thing-1.0.data/purelib/thing_more.py": "WORD = 'more'\n",
    "thing-1.0.data/headers/thing.h": "",
    "thing-1.0.dist-info/entry_points.txt": "[console_scripts]\nthing-run = thing:main\n",
}, metadata="Requires-Dist: other (>=1)\nRequires-Dist: absent; extra == 'more'\n")
wheel("other", "1.5", {"other.py": "WORD = 'other 1.5'\n"})
wheel("native", "1.0", {"native.py": ""}, tag="cp27-cp27m-manylinux1_x86_64")
"##;

/// What shows that all of it is there.
const SHOW: &str = "import importlib.metadata as m, os, subprocess, sys, thing, thing_more\n\
    thing.main()\n\
    run = lambda name: subprocess.run([os.path.join(sys.prefix, 'bin', name)], check=True, stdout=subprocess.PIPE).stdout\n\
    print(run('thing-run').decode().strip(), run('old-tool').decode().strip(), thing_more.WORD)\n\
    print(open(os.path.join(sys.prefix, 'etc/thing.conf')).read(), sorted(d.name for d in m.distributions()))\n\
    print([str(f) for f in m.files('thing') if not f.locate().exists()])\n";

const SHOWN: &str = "main other 1.5\nmain other 1.5 script other 1.5 more\nsetting ['other', 'thing']\n[]\n";

/// A wheelhouse with these wheels in the directory `name`.
fn house(world: &World, name: &str, wheels: &[&str]) -> PathBuf {
    let (all, place) = (world.path("all wheels"), world.path(name));
    if !all.exists() {
        world.run(&usual_interpreter(), &["-c", MAKE, utf8(&all)]);
    }
    fs::create_dir(&place).expect("creates");
    for wheel in fs::read_dir(all).expect("reads").flatten() {
        let file = wheel.file_name().into_string().expect("UTF-8");
        if wheels.iter().any(|wanted| file.starts_with(wanted)) {
            fs::copy(wheel.path(), place.join(file)).expect("copies");
        }
    }
    place
}

fn exec(world: &World, artifact: &Path, arguments: &[&str]) -> Output {
    world.command(boot()).args(["--cpack", "exec"]).arg(artifact).args(arguments).output().expect("starts")
}

#[test]
fn wheelhouse_starts_in_each_form_and_packed() {
    let world = World::new();
    let directory = house(&world, "house", &["thing", "other"]);
    let zip = |name: &str, code: &str| {
        world.run(&usual_interpreter(), &["-c", code, utf8(&world.path(name)), utf8(&directory)]);
        world.path(name)
    };
    let stored = "import os, sys, zipfile\nwith zipfile.ZipFile(sys.argv[1], 'w') as z:\n    \
        [z.write(os.path.join(sys.argv[2], n), n) for n in os.listdir(sys.argv[2])]\n";
    let deflated = "import shutil, sys\nshutil.make_archive(sys.argv[1][:-4], 'zip', sys.argv[2] + '/..', 'house')\n";
    let tarred = |name: &str, mode: &str, top: &str| {
        let code =
            "import sys, tarfile\nwith tarfile.open(sys.argv[1], sys.argv[3]) as t: t.add(sys.argv[2], sys.argv[4])";
        world.run(&usual_interpreter(), &["-c", code, utf8(&world.path(name)), utf8(&directory), mode, top]);
        world.path(name)
    };
    let artifacts = [
        directory.clone(),
        zip("stored.zip", stored),
        zip("deflated.zip", deflated),
        tarred("house.tar.gz", "w:gz", "house"),
        tarred("flat.tar", "w", "."),
        tarred("house.tar.xz", "w:xz", "house"),
    ];
    for artifact in artifacts {
        let cold = succeeded(&exec(&world, &artifact, &["-c", SHOW]), utf8(&artifact));
        assert_eq!(cold, SHOWN, "{}", artifact.display());
        let warm = world.command(boot()).env("CPACK_ARTIFACT", &artifact).args(["-c", SHOW]).output().expect("starts");
        assert_eq!(succeeded(&warm, utf8(&artifact)), SHOWN, "{}", artifact.display());
    }
    let cached = |what: &str| {
        let cache = fs::read_dir(world.path("node")).expect("a cache").flatten().next().expect("one").path();
        fs::read_dir(cache.join(what)).expect(what).flatten().filter(|entry| entry.path().is_dir()).count()
    };
    // Wheels stored in a zip give the layers that they give in a directory.
    assert_eq!(cached("layers"), 3, "thing, other, and the scripts");
    // What another container got is the same environment.
    fs::create_dir(world.path("container")).expect("creates");
    let before = cached("environments");
    for name in ["stored.zip", "house.tar.gz"] {
        let copy = world.path("container").join(name);
        fs::copy(world.path(name), &copy).expect("copies");
        assert_eq!(succeeded(&exec(&world, &copy, &["-c", SHOW]), "a copy"), SHOWN);
        assert_eq!(cached("environments"), before, "{name}");
    }
    let launcher = world.path("env-python");
    succeeded(&world.pack(&["launcher", utf8(&directory), "-o", utf8(&launcher)]), "launcher");
    assert_eq!(world.run(&launcher, &["-c", SHOW]), SHOWN);
    let report = world.pack_json(&["upload", utf8(&world.path("stored.zip"))]);
    assert_eq!(report["packages"], serde_json::json!(["other==1.5", "thing==1.0"]));
    assert_eq!(world.pack_json(&["upload", utf8(&world.path("house.tar.gz"))])["packages"], report["packages"]);
    for (name, form) in
        [("house.tar.gz", "wheelhouse, starts python"), ("stored.zip", "wheelhouse, zipped, starts python")]
    {
        let shown = succeeded(&world.pack(&["info", utf8(&world.path(name))]), "info");
        assert!([name, form, "2 distributions", "thing", "1.5"].iter().all(|fact| shown.contains(fact)), "{shown}");
    }
    let archive = world.path("env.tar.zst");
    succeeded(&world.pack(&["pack", utf8(&world.path("flat.tar")), "-o", utf8(&archive)]), "pack");
    assert_eq!(succeeded(&exec(&world, &archive, &["-c", SHOW]), "a wheelhouse packed again"), SHOWN);
}

#[test]
fn wheelhouse_that_lacks_something_is_refused_in_one_line() {
    let world = World::new();
    for (name, wheels, requirements, code, needles) in [
        ("lacks", &["thing"][..], None, 82, &["other (>=1) of thing-1.0-py3-none-any.whl"][..]),
        ("foreign", &["native"], None, 82, &["native", "there is native-1.0-cp27-cp27m-manylinux1_x86_64.whl"]),
        ("unwanted", &["thing", "other", "native"], Some("thing==2\n"), 82, &["thing==2", "there is thing-1.0"]),
        ("include", &["other"], Some("-r more.txt\n"), 83, &["requirements.txt", "-r more.txt"]),
        ("hashed", &["other"], Some("other --hash=sha256:00\n"), 83, &["other-1.5-py3-none-any.whl", "SHA-256"]),
        ("extra", &["thing", "other"], Some("thing[more]"), 82, &["absent", "of thing-1.0"]),
    ] {
        let place = house(&world, name, wheels);
        if let Some(text) = requirements {
            fs::write(place.join("requirements.txt"), text).expect("writes");
        }
        let started = exec(&world, &place, &["-c", "print('ran')"]);
        let packed =
            world.command(cluster_pack()).arg("launcher").arg(&place).args(["-o", "x"]).output().expect("starts");
        for output in [started, packed] {
            let said = text(&output.stderr);
            assert!(output.stdout.is_empty() && said.lines().count() == 1, "{name}: {said}");
            assert!(
                needles.iter().all(|needle| said.contains(needle)) && said.contains(utf8(&place)),
                "{name}: {said}"
            );
            assert_eq!(output.status.code(), Some(code), "{name}: {said}");
        }
    }
    // In a tar the same is said, with the tar's name.
    let code = "import sys, tarfile\nwith tarfile.open(sys.argv[1], 'w:gz') as t: t.add(sys.argv[2], '.')";
    let tar = world.path("lacks.tar.gz");
    world.run(&usual_interpreter(), &["-c", code, utf8(&tar), utf8(&world.path("lacks"))]);
    let refused = exec(&world, &tar, &["-c", "print('ran')"]);
    let said = text(&refused.stderr);
    assert!(said.contains("lacks.tar.gz") && said.contains("other (>=1) of thing-1.0"), "{said}");
    assert_eq!((refused.status.code(), said.lines().count()), (Some(82), 1), "{said}");
    // Only what the requirements need is started.
    let place = house(&world, "some", &["thing", "other", "native"]);
    fs::write(place.join("requirements.txt"), "--no-index\nthing\n").expect("writes");
    assert_eq!(succeeded(&exec(&world, &place, &["-c", SHOW]), "requirements"), SHOWN);
}

#[test]
fn wheelhouse_names_sdists_and_two_versions() {
    let world = World::new();
    let place = house(&world, "house", &["other"]);
    fs::write(place.join("source-1.0.tar.gz"), "").expect("writes");
    let said = text(&exec(&world, &place, &["-c", ""]).stderr);
    assert!(said.contains("pip wheel --no-deps source-1.0.tar.gz"), "{said}");
    fs::remove_file(place.join("source-1.0.tar.gz")).expect("removes");
    fs::copy(place.join("other-1.5-py3-none-any.whl"), place.join("other-2-py3-none-any.whl")).expect("copies");
    let said = text(&exec(&world, &place, &["-c", ""]).stderr);
    assert!(said.contains("other-1.5-py3-none-any.whl and other-2-py3-none-any.whl"), "{said}");
    fs::write(place.join("requirements.txt"), "other<2").expect("writes");
    let output = exec(&world, &place, &["-c", "import other; print(other.WORD)"]);
    assert_eq!(succeeded(&output, "a version is named"), "other 1.5\n");
}

/// Compares each file of the distributions with its hash in RECORD.
const VERIFY: &str = "import base64, hashlib, importlib.metadata as m\n\
    count = 0\n\
    for d in [m.distribution(n) for n in ('thing', 'other', 'edited')]:\n    \
        for f in d.files:\n        \
            if '__pycache__' not in str(f) and f.name not in ('RECORD', 'INSTALLER', 'REQUESTED') and 'bin/' not in str(f):\n            \
                digest = base64.urlsafe_b64encode(hashlib.new(f.hash.mode, f.read_binary()).digest()).decode().rstrip('=')\n            \
                assert digest == f.hash.value, f\n            \
                count += 1\n\
    import edited\n\
    print(count > 8, edited.WORD, edited.__file__.endswith('site-packages/edited.py'))\n";

#[test]
fn pack_writes_a_wheelhouse_that_pip_installs() {
    let world = World::new();
    let python = usual_interpreter();
    let (env, given) = (world.path("venv"), house(&world, "house", &["thing", "other"]));
    venv(&python, &env);
    let install = |env: &Path, from: &Path, what: &[&str]| {
        let options = ["-m", "pip", "install", "-q", "--no-index", "--find-links", utf8(from)];
        world.run(&env.join("bin/python"), &[&options[..], what].concat());
    };
    install(&env, &given, &["thing"]);
    edit(&world, &env);
    for name in ["written", "written.zip"] {
        let written = world.path(name);
        let arguments = [
            "pack",
            "--venv",
            utf8(&env),
            "--ignore",
            "pip,setuptools",
            "--format",
            "wheelhouse",
            "-o",
            utf8(&written),
        ];
        let output = world.pack(&arguments);
        assert!(text(&output.stderr).contains("edited 1.0 is editable"), "{}", text(&output.stderr));
        assert_eq!(succeeded(&output, "pack").trim(), utf8(&written));
        let booted = succeeded(&exec(&world, &written, &["-c", SHOW]), name);
        assert_eq!(booted, SHOWN.replace("['other',", "['edited', 'other',"), "{name}");
    }
    let (again, directory) = (world.path("again"), world.path("written"));
    venv(&python, &again);
    install(&again, &directory, &["-r", utf8(&directory.join("requirements.txt"))]);
    let shown = world.run(&again.join("bin/python"), &["-c", SHOW]);
    assert!(shown.starts_with(SHOWN.split("setting").next().expect("a start")) && shown.ends_with("[]\n"), "{shown}");
    assert_eq!(world.run(&again.join("bin/python"), &["-c", VERIFY]).trim(), "True edited True");
    // A script of an entry point is the installer's, and a directory with other files is left alone.
    fs::write(directory.join("notes.txt"), "mine").expect("writes");
    let refused = world.pack(&["pack", "--venv", utf8(&env), "--format", "wheelhouse", "-o", utf8(&directory)]);
    assert!(!refused.status.success() && text(&refused.stderr).contains("something else"), "{}", text(&refused.stderr));
}
