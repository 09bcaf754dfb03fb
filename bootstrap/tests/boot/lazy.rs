//! Lazy starts: Python runs from an environment that another process serves. They need `/dev/fuse` and user namespaces.

mod kills;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use cpack_format::job::{Job, Start};
use cpack_format::manifest::LayerKind;
use cpack_format::trace::{self, TracedPiece};
use cpack_test::archives::Node;
use cpack_test::process::{processes_of, wait_until, wait_until_none_runs};
use cpack_test::small_world::{World, cache_name, entries, file, nodes, noise, standard_packages, succeed};

/// Prints all that can be seen below `sys.prefix` but for records, by three ways of reading.
const DESCRIBE: &str = "
import hashlib, mmap, os, stat, sys
def mapped(path, size):
    with open(path, 'rb') as f:
        return mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)[:] if size else b''
def read(path, size):
    with open(path, 'rb') as f:
        return f.read()
def parts(path, size):
    fd, out = os.open(path, os.O_RDONLY), {}
    for at in reversed(range(0, size, 70001)):
        out[at] = os.pread(fd, 70001, at)
    os.close(fd)
    return b''.join(out[at] for at in sorted(out))
def describe(way):
    lines = []
    for base, directories, files in os.walk(sys.prefix):
        directories[:] = sorted(d for d in directories if d != '.cpack')
        for name in ['.'] + directories + files:
            path = os.path.join(base, name)
            found = os.lstat(path)
            short, mode = os.path.relpath(path, sys.prefix), stat.filemode(found.st_mode)
            if stat.S_ISLNK(found.st_mode):
                lines.append((short, mode, os.readlink(path)))
            elif stat.S_ISREG(found.st_mode):
                lines.append((short, mode, found.st_size, found.st_uid, hashlib.sha256(way(path, found.st_size)).hexdigest()))
            else:
                lines.append((short, mode, found.st_uid))
    return sorted(map(str, lines))
";

/// A command that starts lazily, in a cache of its own.
fn lazily(world: &World, cache: &str, fill: &str, arguments: &[&str]) -> Command {
    let place = world.user_directory(cache);
    let mut command = world.command(arguments);
    command.env("CPACK_CACHE_DIR", place).env("CPACK_START", "lazy").env("CPACK_FILL", fill);
    command
}

fn code(code: &str) -> [String; 2] {
    ["-c".into(), format!("{DESCRIBE}{code}")]
}

/// The standard packages, and one with large and odd files.
fn odd_packages() -> Vec<(&'static str, cpack_test::archives::Nodes)> {
    let mut packages = standard_packages();
    let odd = nodes(&[
        ("site/odd/__init__.py", file("")),
        ("site/odd/empty.txt", file("")),
        ("site/odd/exactly.bin", Node::File(noise(1 << 20, 1))),
        ("site/odd/one-more.bin", Node::File(noise((1 << 20) + 1, 2))),
        ("site/odd/large.bin", Node::File(noise((9 << 20) + 12_345, 3))),
        ("site/odd/link.bin", Node::Link(b"large.bin".to_vec())),
        ("site/odd/templates/run.sh", Node::Executable(b"#!/bin/sh\n".to_vec())),
        ("site/odd/nothing", Node::Directory),
    ]);
    packages.push(("odd", odd));
    packages
}

#[test]
fn lazy_start_serves_every_byte_and_mode_of_the_eager_tree() {
    let world = World::with(crate::boot(), &odd_packages(), |_| {});
    for way in ["read", "mapped", "parts"] {
        let code = code(&format!("print('\\n'.join(describe({way})))"));
        let arguments = code.each_ref().map(String::as_str);
        let eager = world.run(&arguments);
        let lazy = succeed(&mut lazily(&world, &format!("lazy-{way}"), "off", &arguments));
        assert!(eager.lines().count() > 320, "{eager}");
        let differences: Vec<_> = eager.lines().zip(lazy.lines()).filter(|(eager, lazy)| eager != lazy).collect();
        assert!(differences.is_empty() && eager == lazy, "{way}: {differences:?}");
        assert_eq!(world.last_start(), "lazy");
    }
}

#[test]
fn lazy_start_serves_eight_processes_that_read_at_once_and_while_it_fills() {
    let world = World::with(crate::boot(), &odd_packages(), |_| {});
    let code = code(
        "
digests = []
for child in range(8):
    r, w = os.pipe()
    if os.fork() == 0:
        text = '\\n'.join(describe([read, mapped, parts][child % 3]))
        os.write(w, hashlib.sha256(text.encode()).hexdigest().encode())
        os._exit(0)
    os.close(w)
    digests.append(r)
print(len({os.read(r, 64) for r in digests}), hashlib.sha256('\\n'.join(describe(read)).encode()).hexdigest())",
    );
    let arguments = code.each_ref().map(String::as_str);
    let eager = world.run(&arguments);
    assert!(eager.starts_with("1 "), "{eager}");
    for fill in ["off", "idle", "full"] {
        assert_eq!(succeed(&mut lazily(&world, &format!("lazy-{fill}"), fill, &arguments)), eager, "{fill}");
    }
}

#[test]
fn lazy_start_leaves_pid_streams_and_children_as_they_are() {
    let world = World::new(crate::boot());
    let code = "import os, sys, alpha\n\
                try:\n    os.wait()\nexcept ChildProcessError:\n    print('no child')\n\
                print(os.getpid(), os.getuid(), os.getgid(), os.getcwd(), \
                sorted(int(fd) for fd in os.listdir('/proc/self/fd'))[:3], sys.prefix != sys.base_prefix)\n\
                sys.exit(7)";
    let mut command = lazily(&world, "lazy", "idle", &["-c", code]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let pid = child.id();
    let output = child.wait_with_output().expect("ends");
    let user = fs::metadata(world.path("work")).map(|m| std::os::unix::fs::MetadataExt::uid(&m)).expect("stat");
    let expected = format!("no child\n{pid} {user} {user} {} [0, 1, 2] True\n", world.path("work").display());
    assert_eq!((text(&output.stdout), text(&output.stderr)), (expected, String::new()));
    assert_eq!(output.status.code(), Some(7));
    // What filled ends with the job. A later start builds the rest; what was left half built is nowhere but in staging.
    wait_until_none_runs(&world.path("env-python"));
    let cache = world.path("lazy");
    assert_eq!(
        succeed(world.command(&["-c", "import alpha; print(alpha.NAME)"]).env("CPACK_CACHE_DIR", &cache)),
        "alpha\n"
    );
    for layer in &world.manifest.layers {
        let files = cache.join(cache_name()).join("layers").join(layer.content.to_hex()).join("files");
        assert_eq!(cpack_node::cache::content_of(&files, 1, &|| {}).expect("a layer"), layer.content, "{}", layer.name);
    }
}

#[test]
fn lazy_start_that_fills_to_the_end_makes_the_next_one_plain_and_warm() {
    let world = World::new(crate::boot());
    let code = "import sys, alpha, beta; print(alpha.NAME, beta.NAME, sys.prefix)";
    let arguments = ["-c", code];
    let first = succeed(world.command(&arguments).env("CPACK_START", "lazy").env("CPACK_FILL", "full"));
    assert!(first.contains("/served/") && world.last_start() == "lazy", "{first}");
    let built = world.cache().join("environments");
    wait_until("the environment is built", || {
        !entries(&built).is_empty() && entries(&world.cache().join("staging")).is_empty()
    });
    let second = succeed(world.command(&arguments).env("CPACK_START", "lazy"));
    assert!(second.contains("/environments/") && world.last_start() == "warm", "{second}");
    world.check_cache();
}

#[test]
fn lazy_start_reads_from_layers_that_are_there() {
    let world = World::new(crate::boot());
    world.run(&["-c", ""]);
    // Only the tree is missing, and the store is gone but for the manifest, which travels with the launcher.
    let tree = world.environment();
    succeed(Command::new("chmod").args(["-R", "u+w"]).arg(&tree));
    fs::remove_dir_all(&tree).expect("removes");
    fs::remove_dir_all(world.path("store/layers")).expect("removes");
    let arguments = ["-c", "import alpha, sys; print(alpha.NAME, '/served/' in sys.prefix)"];
    let output = succeed(world.command(&arguments).env("CPACK_START", "lazy").env("CPACK_FILL", "off"));
    assert_eq!(output, "alpha True\n");
}

#[test]
fn lazy_start_answers_damage_with_an_error_and_one_line() {
    for damage in ["flipped", "truncated"] {
        let world = World::with(crate::boot(), &odd_packages(), |_| {});
        let layer = world.manifest.layers.iter().find(|layer| layer.name == "odd").expect("there");
        let path = world.path("store").join(layer.key().as_str());
        let bytes = fs::read(&path).expect("reads");
        // What the directory says stays right: the start itself goes well.
        let damaged = match damage {
            "flipped" => {
                let mut bytes = bytes;
                bytes[5 << 20] ^= 1;
                bytes
            }
            _ => bytes,
        };
        rewrite(&path, &damaged);
        let code = "import sys, odd, hashlib, os\n\
                    print('started', flush=True)\n\
                    if sys.argv[2] == 'truncated':\n    os.truncate(sys.argv[1], 4 << 20)\n\
                    wrong = []\n\
                    for _ in range(2):\n\
                    \x20   try:\n        open(odd.__path__[0] + '/large.bin', 'rb').read(); wrong.append('read')\n\
                    \x20   except OSError as e:\n        wrong.append(e.errno)\n\
                    import alpha\n\
                    print(wrong, alpha.NAME)";
        let output = lazily(&world, "lazy", "off", &["-c", code, path.to_str().expect("UTF-8"), damage]).output();
        let output = output.expect("starts");
        assert_eq!(text(&output.stdout), "started\n[5, 5] alpha\n", "{damage}: {}", text(&output.stderr));
        let error = text(&output.stderr);
        assert!(
            error.lines().all(|line| line.starts_with("cpack-boot: a file of the environment cannot be read: ")),
            "{error}"
        );
        assert!(error.contains("odd") && (1..=2).contains(&error.lines().count()), "{error}");
    }
}

#[test]
fn lazy_start_is_eager_and_says_why_where_the_node_refuses() {
    for (refuse, reason) in [
        ("mount --bind /dev/null /dev/fuse", "refuses mount: "),
        ("echo 0 > /proc/sys/user/max_user_namespaces", "refuses user and mount namespaces: "),
    ] {
        let world = World::new(crate::boot());
        // In namespaces in which this user may take things away.
        let script = format!(
            "{refuse} && exec \"$0\" -c 'import alpha, sys; print(alpha.NAME, \"environments\" in sys.prefix)'"
        );
        let start = |log: &str| {
            let mut command = world.command_of(Path::new("/usr/bin/unshare"), &["-Urm", "sh", "-c", &script]);
            command.arg(world.path("env-python")).env("CPACK_START", "lazy").env("CPACK_LOG", log);
            command.output().expect("starts")
        };
        let output = start("1");
        let error = text(&output.stderr);
        assert_eq!(text(&output.stdout), "alpha True\n", "{error}");
        assert!(error.contains("CPACK_START=lazy is not possible here") && error.contains(reason), "{error}");
        let output = start("0");
        assert_eq!((text(&output.stdout), text(&output.stderr)), ("alpha True\n".into(), String::new()));
    }
}

#[test]
fn lazy_start_serves_children_that_outlive_python_and_keeps_no_stream_of_its_caller() {
    let world = World::new(crate::boot());
    let code = "import os, sys, time\n\
                if os.fork() == 0:\n\
                \x20   os.setsid()\n\
                \x20   nothing = os.open('/dev/null', os.O_RDWR)\n\
                \x20   [os.dup2(nothing, fd) for fd in range(3)]\n\
                \x20   while os.path.exists('wait'): time.sleep(0.01)\n\
                \x20   import beta, large\n\
                \x20   size = len(open(large.__path__[0] + '/lib.so', 'rb').read())\n\
                \x20   open('result.new', 'w').write(f'{beta.NAME} {size}')\n\
                \x20   os.rename('result.new', 'result')\n\
                print('done')";
    let wait = world.path("work/wait");
    fs::write(&wait, "").expect("writes");
    let mut command = lazily(&world, "lazy", "off", &["-c", code]);
    // Standard error stays open for what the server has to say.
    let output = command.stderr(Stdio::null()).output().expect("starts");
    assert_eq!(text(&output.stdout), "done\n");
    let launcher = world.path("env-python");
    assert!(!processes_of(&launcher).is_empty(), "the server goes on");
    fs::remove_file(&wait).expect("removes");
    let result = world.path("work/result");
    wait_until("the child has read", || result.exists());
    assert_eq!(fs::read_to_string(result).expect("reads"), format!("beta {}", 6 << 20));
    wait_until_none_runs(&launcher);
    assert_eq!(
        entries(&world.user_directory("lazy").join(cache_name()).join("staging")),
        [] as [std::path::PathBuf; 0]
    );
}

#[test]
fn lazy_start_has_overlays() {
    let world = World::new(crate::boot());
    let project = nodes(&[
        ("project.py", file("NAME = 'project'\n")),
        ("project-1.0.dist-info/METADATA", file("Name: project\n")),
    ]);
    let job = Job { overlays: vec![world.put(LayerKind::Overlay, "project", &project)], ..world.job.clone() };
    let launcher = world.write_launcher("with-overlay", &job);
    let code = "import sys, project, alpha; print(project.NAME, alpha.NAME, alpha.__file__.split('/')[-6], '/jobs/' in sys.prefix)";
    for start in ["eager", "lazy", "lazy"] {
        let mut command = world.command_of(&launcher, &["-c", code]);
        command.env("CPACK_CACHE_DIR", world.user_directory(start)).env("CPACK_START", start).env("CPACK_FILL", "off");
        assert!(succeed(&mut command).starts_with("project alpha "), "{start}");
        assert_eq!(world.last_start() == "lazy", start == "lazy");
    }
}

#[test]
fn lazy_start_differs_in_what_docs_lazy_md_says() {
    let world = World::new(crate::boot());
    let code = "import alpha, errno, os, sys\n\
                def error(do, *arguments):\n\
                \x20   try:\n        return do(*arguments)\n\
                \x20   except OSError as e:\n        return errno.errorcode[e.errno]\n\
                open('own', 'w').close()\n\
                print(os.stat('/').st_uid, error(os.chown, 'own', -1, 0), error(os.setgroups, [1]), \
                error(os.chown, 'own', -1, os.getgid()), error(open, alpha.__path__[0] + '/new', 'w'), \
                error(os.listdir, '/root'), os.getuid() == os.stat('own').st_uid)";
    let eager = succeed(&mut world.command(&["-c", code]));
    let lazy = succeed(&mut lazily(&world, "lazy", "off", &["-c", code]));
    assert_eq!(eager, "0 EPERM EPERM None EACCES EACCES True\n");
    assert_eq!(lazy, "65534 EINVAL EPERM None EROFS EACCES True\n");
}

#[test]
fn lazy_start_records_what_is_read_first_and_later_ones_copy_nothing_ahead() {
    let world = World::with(crate::boot(), &odd_packages(), |_| {});
    // The environment is on the node: what is recorded is read from archives all the same.
    world.run(&["-c", ""]);
    let file = world.path("work/trace");
    let code = "import alpha, odd; print(len(open(odd.__path__[0] + '/large.bin', 'rb').read()), alpha.NAME)";
    let recorded = |arguments: &[&str]| succeed(world.command(arguments).env("CPACK_FILL", "off"));
    let output = recorded(&["--cpack", "trace", "trace", "-c", code]);
    assert_eq!((output, world.last_start()), (format!("{} alpha\n", (9 << 20) + 12_345), "lazy".into()));
    let touches = trace::parse(&fs::read(&file).expect("a trace")).expect("parses");
    let of =
        |name: &'static str| touches.iter().filter(move |touch| touch.path.ends_with(name)).map(|touch| touch.offset);
    assert_eq!(of("odd/large.bin").collect::<Vec<_>>(), (0..10).map(|block| block << 20).collect::<Vec<_>>());
    assert_eq!(
        (of("alpha/__init__.py").count(), of("beta/__init__.py").count(), of("one-more.bin").count()),
        (1, 0, 0)
    );
    // A second run adds to the file, by the variable.
    succeed(world.command(&["-c", "import beta"]).env("CPACK_RECORD", &file).env("CPACK_FILL", "off"));
    let both = trace::parse(&fs::read(&file).expect("a trace")).expect("parses");
    assert!(both.len() > touches.len() && both.starts_with(&touches));

    let traced = trace::pieces(&both, &world.manifest.layers);
    assert_eq!(traced.others, [] as [String; 0]);
    let job = Job { trace: traced.pieces, start: Start::Lazy, ..world.job.clone() };
    let launcher = world.write_launcher("traced", &job);
    let mut command = world.command_of(&launcher, &["-c", "import alpha; print(alpha.NAME)"]);
    command.env("CPACK_CACHE_DIR", world.user_directory("ahead")).env("CPACK_FILL", "off");
    let events = world.path("work/events");
    assert_eq!(succeed(command.env("CPACK_TRACE", &events)), "alpha\n");
    wait_until_none_runs(&launcher);
    let metrics = world.metrics();
    let of = |kind: &str| metrics.iter().rfind(|line| line["start"] == kind).expect("a line");
    let bytes = |line: &serde_json::Value, name: &str| line["bytes"][name].as_u64().expect("a number");
    let all: u64 = job.trace.iter().map(|piece| piece.size(&world.manifest.layers)).sum();
    let (start, server) = (of("lazy"), of("server"));
    // The archives are local files: the kernel is told, and nothing is copied that no program asked for.
    assert_eq!(bytes(server, "ahead"), 0, "{server}");
    let events = fs::read_to_string(events).expect("events");
    assert!(events.lines().any(|line| line.contains("\"cat\":\"ahead\"")), "{events}");
    assert!(bytes(server, "fetched") < all && bytes(start, "fetched") <= bytes(server, "fetched"), "{start} {server}");
    assert!(bytes(start, "fetched") > 0, "{start}");
}

#[test]
fn auto_start_is_lazy_only_where_a_trace_says_that_it_pays() {
    let world = World::with(crate::boot(), &odd_packages(), |_| {});
    let layers = &world.manifest.layers;
    let index = layers.iter().position(|layer| layer.name == "odd").expect("there");
    let pieces = layers[index].archive.pieces.len() as u32;
    assert!(pieces >= 4, "{pieces}");
    let whole: Vec<_> = (0..pieces).map(|number| TracedPiece(index as u32, number)).collect();
    let small = vec![TracedPiece(0, 0)];
    for (trace, start, reason) in [
        (Vec::new(), "cold", "the job has no trace"),
        (whole.clone(), "cold", "more than a third"),
        (small.clone(), "lazy", ""),
    ] {
        let job = Job { trace, start: Start::Auto, ..world.job.clone() };
        let launcher = world.write_launcher(&format!("auto-{start}"), &job);
        let mut command = world.command_of(&launcher, &["-c", "import alpha"]);
        let place = world.user_directory(&format!("auto-{}", job.trace.len()));
        let output = command.env("CPACK_CACHE_DIR", place).env("CPACK_LOG", "1").env("CPACK_FILL", "off").output();
        let output = output.expect("starts");
        assert!(output.status.success());
        let said = text(&output.stderr);
        assert_eq!(world.last_start(), start, "{said}");
        assert_eq!(said.contains("CPACK_START=auto is eager here"), start == "cold", "{said}");
        assert!(said.contains(reason), "{said}");
    }
    // The node has the last word.
    let launcher = world.write_launcher("auto", &Job { trace: small, start: Start::Auto, ..world.job.clone() });
    let mut command = world.command_of(&launcher, &["-c", "import alpha"]);
    succeed(command.env("CPACK_CACHE_DIR", world.user_directory("eager")).env("CPACK_START", "eager"));
    assert_eq!(world.last_start(), "cold");
}

#[test]
fn info_says_whether_this_node_can_start_lazily() {
    let world = World::new(crate::boot());
    let said = succeed(&mut world.command(&["--cpack", "info"]));
    assert!(said.contains("lazy starts  possible here"), "{said}");
    let script = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$0\" --cpack info --json";
    let mut command = world.command_of(Path::new("/usr/bin/unshare"), &["-Urm", "sh", "-c", script]);
    let said = succeed(command.arg(world.path("env-python")));
    let json: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    let reason = json["lazy"]["reason"].as_str().expect("a reason");
    assert!(json["lazy"]["possible"] == false && reason.contains("namespaces"), "{said}");
    assert!(!world.cache().exists(), "info leaves nothing behind");
}

#[test]
fn lazy_start_goes_on_when_the_disk_is_full_for_what_fills() {
    let world = World::with(crate::boot(), &odd_packages(), |_| {});
    // The cache has room for the server's own files, and for a part of the layers.
    let script = "mount -t tmpfs -o size=6m,mode=777 none \"$CPACK_CACHE_DIR\" && exec \"$0\" -c \"$CODE\"";
    let code = "import alpha, odd, os, sys, time\n\
                cache = os.environ['CPACK_CACHE_DIR']\n\
                line = lambda: any('\"filler\"' in line for line in open(os.environ['CPACK_METRICS']))\n\
                while not line(): time.sleep(0.01)\n\
                print(len(open(odd.__path__[0] + '/large.bin', 'rb').read()), '/served/' in sys.prefix)\n\
                top = os.path.join(cache, os.listdir(cache)[0])\n\
                print(len(os.listdir(top + '/staging')), os.path.exists(top + '/environments') and os.listdir(top + '/environments'))";
    let mut command = world.command_of(Path::new("/usr/bin/unshare"), &["-Urm", "sh", "-c", script]);
    command.arg(world.path("env-python")).env("CODE", code).env("CPACK_START", "lazy").env("CPACK_FILL", "full");
    // There is no other place.
    let closed = world.path("closed");
    fs::create_dir(&closed).expect("creates");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).expect("chmod");
    command.env("CPACK_CACHE_DIR", world.user_directory("small"));
    command.env("HOME", &closed).env("TMPDIR", &closed).current_dir(&closed);
    let output = command.output().expect("starts");
    let said = (text(&output.stdout), text(&output.stderr));
    // Staging has what the server serves, and nothing of the filler.
    assert_eq!(said, (format!("{} True\n1 []\n", (9 << 20) + 12_345), String::new()));
    let metrics = world.metrics();
    let filler = metrics.iter().find(|line| line["start"] == "filler").expect("a line");
    assert_eq!(filler["outcome"], "Disk", "{filler}");
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Replaces a file that is read-only.
fn rewrite(path: &Path, bytes: &[u8]) {
    fs::remove_file(path).expect("removes");
    fs::write(path, bytes).expect("writes");
    cpack_test::small_world::own(path.to_owned());
}
