//! Overlays: editable projects are in the booted environment as they are in the virtual one.

use std::path::{Path, PathBuf};

use cpack_format::job::{Job, Program};
use cpack_format::manifest::LayerKind;
use cpack_test::archives::{Node, Nodes};
use cpack_test::small_world::{World, entries, file, nodes, python, standard_packages, succeed};

use crate::starts::world_with_shipped_interpreter;

/// A script as the packer writes it, which looks for `python` beside what it really is.
fn script() -> Node {
    let text = "#!/bin/sh\n'''exec' \"$(dirname -- \"$(realpath -- \"$0\")\")\"/'python' \"$0\" \"$@\"\n' '''\n\
                import over, sys\nprint('script', over.WORD, sys.argv[1:])\n";
    Node::Executable(text.as_bytes().to_vec())
}

/// A project with a module of its own, modules that others have too, a script, and a `.pth` file that it installs.
fn over(word: &str) -> Nodes {
    nodes(&[
        ("over.py", file(&format!("WORD = '{word}'\n"))),
        ("statistics.py", file("NAME = 'over'\n")),
        ("alpha.py", file("NAME = 'over'\n")),
        ("hook.pth", file("import os; os.environ['OVER_PTH'] = '1'\n")),
        ("over-1.0.data/scripts/over-tool", script()),
    ])
}

fn job(world: &World, words: &[&str], change: impl FnOnce(&mut Job)) -> PathBuf {
    let mut job = world.job.clone();
    job.overlays = words.iter().map(|word| world.put(LayerKind::Overlay, word, &over(word))).collect();
    change(&mut job);
    world.write_launcher(&words.join("-"), &job)
}

fn jobs(world: &World) -> Vec<PathBuf> {
    entries(&world.cache().join("jobs"))
}

#[test]
fn overlays_come_after_the_standard_library_and_the_environment() {
    let world = World::new(crate::boot());
    let launcher = job(&world, &["one", "two"], |_| {});
    let framework = world.user_directory("framework");
    std::fs::write(framework.join("beta.py"), "NAME = 'framework'").expect("writes");
    let code = "import alpha, beta, over, os, statistics, sys; \
                at = [i for i, p in enumerate(sys.path) if 'site-packages' in p or '/layers/' in p]; \
                print(alpha.NAME, beta.NAME, over.WORD, statistics.mean([3]), os.environ.get('OVER_PTH'), \
                [os.path.basename(sys.path[i]) for i in at], at[-1] == len(sys.path) - 1, \
                len(set(sys.path)) == len(sys.path))";
    for start in ["cold", "warm"] {
        let seen = succeed(world.command_of(&launcher, &["-c", code]).env("PYTHONPATH", &framework));
        assert_eq!(seen, "alpha framework one 3 1 ['site-packages', 'files', 'files'] True True\n", "{start}");
        assert_eq!(world.last_start(), start);
    }
    assert_eq!(jobs(&world).len(), 1);
    world.check_cache();
    let plain = "import importlib.util as u, sys; print(u.find_spec('over'), '/environments/' in sys.prefix)";
    assert_eq!(world.run(&["-c", plain]), "None True\n", "a job without overlays starts from the tree itself");
}

#[test]
fn every_child_has_the_overlays() {
    let world = World::new(crate::boot());
    let launcher = job(&world, &["one"], |_| {});
    for options in [&["-I"][..], &["-E"], &["-s"], &["-I", "-X", "dev"]] {
        let arguments = [options, &["-m", "over"]].concat();
        assert_eq!(succeed(&mut world.command_of(&launcher, &arguments)), "", "{options:?}");
    }
    let code = "import os, subprocess, sys\n\
                for environ in [{}, {'PATH': '/usr/bin:/bin'}, dict(os.environ, PYTHONPATH='/nowhere')]:\n\
                \x20   print(subprocess.check_output([sys.executable, '-c', 'import over; print(over.WORD)'], env=environ))\n\
                print(subprocess.check_output([sys.executable, '-I', '-c', 'import over; print(over.WORD)']))\n\
                import multiprocessing\n\
                with multiprocessing.get_context('spawn').Pool(1) as pool:\n\
                \x20   print(pool.apply(eval, ('__import__(\"over\").WORD',)))";
    let expected = format!("{}one\n", "b'one\\n'\n".repeat(4));
    assert_eq!(succeed(&mut world.command_of(&launcher, &["-c", code])), expected);
}

#[test]
fn scripts_of_overlays_and_of_the_environment_find_the_overlays() {
    let packages = [standard_packages(), vec![("own", nodes(&[("bin/own-tool", script())]))]].concat();
    let world = World::with(crate::boot(), &packages, |_| {});
    let launcher = job(&world, &["one"], |job| job.entry = Program::Script("over-tool".into()));
    assert_eq!(succeed(&mut world.command_of(&launcher, &["-x"])), "script one ['-x']\n");
    let [prefix] = &jobs(&world)[..] else { panic!("one job") };
    let run = |path: &Path| succeed(&mut world.command_of(path, &["a"]));
    assert_eq!(run(&prefix.join("bin/over-tool")), "script one ['a']\n");
    assert_eq!(run(&prefix.join("bin/own-tool")), "script one ['a']\n", "it starts the Python of the job");
    assert_eq!(run(&prefix.join("bin/alpha-tool")), "tool ['a']\n");
    let code = "import os, subprocess, sys; print(os.readlink(sys.prefix + '/lib'), \
                subprocess.check_output([sys.prefix + '/bin/alpha-tool']), sorted(os.listdir(sys.prefix + '/bin')))";
    let seen = succeed(world.command_of(&launcher, &["-c", code]).env("CPACK_INTERPRETER", "1"));
    let key = world.environment().file_name().expect("a name").to_string_lossy().into_owned();
    let minor = &python().minor;
    let names = format!("['alpha-tool', 'over-tool', 'own-tool', 'python', 'python3', 'python{minor}']");
    assert_eq!(seen, format!("../../environments/{key}/lib b'tool []\\n' {names}\n"));
}

#[test]
fn private_copy_has_the_overlays_itself() {
    let world = World::new(crate::boot());
    let launcher = job(&world, &["one"], |_| {});
    let code = "import over, subprocess, sys; print(over.WORD, '/private/' in sys.prefix, \
                subprocess.check_output([sys.prefix + '/bin/over-tool'], env={'PATH': '/usr/bin:/bin'}))";
    let seen = succeed(world.command_of(&launcher, &["-c", code]).env("CPACK_WRITABLE", "1"));
    assert_eq!(seen, "one True b'script one []\\n'\n");
    assert_eq!(jobs(&world), [] as [PathBuf; 0]);
}

#[test]
fn shipped_interpreter_starts_from_a_job_prefix_too() {
    let world = world_with_shipped_interpreter();
    let launcher = job(&world, &["one"], |_| {});
    let seen = succeed(world.command_of(&launcher, &["-x"]).env("PATH", "/nowhere"));
    let [prefix] = &jobs(&world)[..] else { panic!("one job") };
    assert_eq!(seen, format!("shipped {}/bin/python -x\n", prefix.display()));
    let config = std::fs::read_to_string(prefix.join("pyvenv.cfg")).expect("reads");
    assert!(config.starts_with(&format!("home = {}/bin\n", world.environment().display())), "{config}");
}

#[test]
fn clean_up_takes_job_prefixes_with_what_they_lead_to_and_none_that_runs() {
    let world = World::new(crate::boot());
    let launcher = job(&world, &["one"], |_| {});
    let mut running = world
        .command_of(&launcher, &["-c", "import over, sys; sys.stdin.read()"])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("starts");
    while jobs(&world).is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // Started all the way: it has its leases, or has ended.
    let proc = PathBuf::from(format!("/proc/{}/cmdline", running.id()));
    while !String::from_utf8_lossy(&std::fs::read(&proc).expect("runs")).contains("/jobs/") {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let gc = || succeed(&mut world.command(&["--cpack", "gc", "--all"]));
    let other = job(&world, &["two"], |_| {});
    succeed(&mut world.command_of(&other, &["-c", ""]));
    assert_eq!(jobs(&world).len(), 2);
    assert!(gc().contains("1 job prefixes"), "that of the other overlay, which is gone");
    assert_eq!(jobs(&world).len(), 1);
    drop(running.stdin.take());
    running.wait().expect("ends");
    assert!(gc().contains("removed 1 environments"));
    assert_eq!(jobs(&world), [] as [PathBuf; 0]);
}

#[test]
fn job_prefix_that_is_damaged_or_of_another_boot_is_made_again() {
    let world = World::new(crate::boot());
    let launcher = job(&world, &["one"], |_| {});
    let start = || succeed(&mut world.command_of(&launcher, &["-c", "import over; print(over.WORD)"]));
    let open = |path: &Path| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
    };
    start();
    let [prefix] = &jobs(&world)[..] else { panic!("one job") };
    for damage in ["bin/over-tool", "lib", "bin/python", "pyvenv.cfg"] {
        [prefix, &prefix.join("bin")].into_iter().for_each(|path| open(path));
        std::fs::remove_file(prefix.join(damage)).expect("removes");
        let told = succeed(&mut world.command(&["--cpack", "verify"]));
        assert!(told.contains("job prefix") && told.contains("was damaged: repaired"), "{damage}: {told}");
        assert_eq!(start(), "one\n");
        assert!(!succeed(&mut world.command(&["--cpack", "verify"])).contains("job prefix"));
    }
    // As a power loss leaves it.
    let lease = prefix.join(".cpack/lease");
    std::fs::write(&lease, "").expect("empties");
    assert_eq!(start(), "one\n");
    assert_ne!(std::fs::read(&lease).expect("reads"), b"");
    let status = succeed(&mut world.command(&["--cpack", "status"]));
    assert!(status.contains("1 job prefixes"), "{status}");
}
