//! Starts that go well: what Python sees, cold and warm.

use std::io::Write as _;
use std::process::Stdio;

use cpack_format::job::Program;
use cpack_format::manifest::LayerKind;
use cpack_test::archives::Node;
use cpack_test::small_world::{World, assert_fails, entries, file, nodes, python, succeed, write_executable};

#[test]
fn the_first_start_builds_and_the_second_finds() {
    let world = World::new(crate::boot());
    let code = "import sys, os, alpha, beta; print(alpha.NAME, beta.NAME, os.environ['PTH_RAN'], sys.prefix, \
                sys.base_prefix != sys.prefix, sys.argv[1:])";
    let first = world.run(&["-c", code, "x", "-y"]);
    assert_eq!(world.last_start(), "cold");
    let prefix = world.environment().display().to_string();
    assert_eq!(first, format!("alpha beta 1 {prefix} True ['x', '-y']\n"));
    assert_eq!(world.run(&["-c", code, "x", "-y"]), first);
    assert_eq!(world.last_start(), "warm");
    world.check_cache();
}

#[test]
fn python_s_own_streams_and_exit_code_are_untouched() {
    let world = World::new(crate::boot());
    for start in ["cold", "warm"] {
        let mut child = world
            .command(&["-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let script = "import sys\nsys.stdout.buffer.write(b'\\x00\\x01')\nsys.stderr.write('e')\nsys.exit(7)\n";
        child.stdin.take().expect("a pipe").write_all(script.as_bytes()).expect("writes");
        let output = child.wait_with_output().expect("ends");
        assert_eq!((output.status.code(), &output.stdout[..], &output.stderr[..]), (Some(7), &[0, 1][..], &b"e"[..]));
        assert_eq!(world.last_start(), start);
    }
}

#[test]
fn the_process_python_gets_is_the_one_that_was_started() {
    let world = World::new(crate::boot());
    world.run(&["-c", ""]);
    let code = "import os, signal; print(os.getpid(), os.getppid(), signal.pthread_sigmask(signal.SIG_BLOCK, []), \
                sorted(os.listdir('/proc/self/fd'), key=int)[:3])";
    let child = world.command(&["-c", code]).stdout(Stdio::piped()).spawn().expect("starts");
    let pid = child.id();
    let output = child.wait_with_output().expect("ends");
    let expected = format!("{pid} {} set() ['0', '1', '2']\n", std::process::id());
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
}

#[test]
fn signals_are_handed_on_as_they_were() {
    // Python ignores SIGPIPE by itself, so another program shows what is handed on.
    let cat = std::fs::read("/bin/cat").expect("reads");
    let packages = [("cat", nodes(&[("bin/native", Node::Executable(cat))]))];
    let world = World::with(crate::boot(), &packages, |job| job.entry = Program::Script("native".into()));
    let signals = |command: &mut std::process::Command| -> Vec<String> {
        let status = succeed(command);
        status.lines().filter(|line| line.starts_with("Sig") && !line.starts_with("SigQ")).map(str::to_owned).collect()
    };
    let expected = signals(&mut world.command_of("/bin/cat".as_ref(), &["/proc/self/status"]));
    assert_eq!(expected.len(), 4);
    for _ in 0..2 {
        assert_eq!(signals(&mut world.command(&["/proc/self/status"])), expected);
    }
}

#[test]
fn closed_descriptors_stay_closed() {
    let world = World::new(crate::boot());
    let launcher = world.path("env-python");
    let script = format!(
        "exec 0<&- 3>out 1>&3; exec {} -c 'import os; print(os.path.exists(\"/proc/self/fd/0\"))'",
        launcher.display()
    );
    for _ in 0..2 {
        succeed(&mut world.command_of("/bin/sh".as_ref(), &["-c", &script]));
        assert_eq!(std::fs::read_to_string(world.path("work/out")).expect("reads"), "False\n");
    }
}

#[test]
fn each_kind_of_entry_runs() {
    let script = World::with(crate::boot(), &cpack_test::small_world::standard_packages(), |job| {
        job.entry = Program::Script("alpha-tool".into())
    });
    assert_eq!(script.run(&["a", "-b"]), "tool ['a', '-b']\n");
    let interpreter = succeed(script.command(&["-c", "print(1)"]).env("CPACK_INTERPRETER", "1"));
    assert_eq!(interpreter, "1\n");
    let tool = script.environment().join("bin/alpha-tool");
    assert_eq!(succeed(&mut script.command_of(&tool, &["c"])), "tool ['c']\n", "run by its own first line");

    let module = World::with(
        crate::boot(),
        &[("run", nodes(&[("site/run/__main__.py", file("import sys; print(sys.argv[1:])"))]))],
        |job| job.entry = Program::Module("run".into()),
    );
    assert_eq!(module.run(&["-z"]), "['-z']\n");
    let missing = World::with(crate::boot(), &cpack_test::small_world::standard_packages(), |job| {
        job.entry = Program::Script("none".into())
    });
    assert_fails(&missing.command(&[]).output().expect("starts"), 83, "no script \"none\"");
}

/// A world whose environment ships its interpreter: a script that prints its arguments.
pub(crate) fn world_with_shipped_interpreter() -> World {
    let minor = &python().minor;
    let script = Node::Executable(b"#!/bin/sh\necho shipped \"$0\" \"$@\"\n".to_vec());
    let packages = [("python", nodes(&[(&format!("bin/python{minor}"), script)]))];
    World::with(crate::boot(), &packages, |job| {
        job.interpreter.shipped = true;
        job.interpreter.path.clear();
    })
}

#[test]
fn shipped_interpreter_is_the_one_that_runs() {
    let world = world_with_shipped_interpreter();
    for start in ["cold", "warm"] {
        // A node without any Python.
        let output = succeed(world.command(&["-x"]).env("PATH", "/nowhere"));
        assert_eq!(output, format!("shipped {}/bin/python -x\n", world.environment().display()));
        assert_eq!(world.last_start(), start);
        assert!(!world.environment().join("pyvenv.cfg").exists());
    }
}

#[test]
fn payload_runs_inside_the_environment() {
    let world = World::new(crate::boot());
    // {'func': os.path.join, 'args': ['a', 'b']} would print nothing: exec with a statement does.
    let pickle = format!(
        "import pickle, builtins; pickle.dump({{'func': exec, 'args': ['import alpha; print(alpha.NAME)']}}, \
         open({:?}, 'wb'))",
        world.path("work/p")
    );
    succeed(&mut world.command_of(&python().path, &["-c", &pickle]));
    let bytes = std::fs::read(world.path("work/p")).expect("reads");
    let payload = world.put(LayerKind::Payload, "payload", &nodes(&[("payload.pkl", Node::File(bytes))]));
    let mut job = world.job.clone();
    job.entry = Program::Payload(payload.content);
    job.overlays = vec![payload];
    let launcher = world.write_launcher("payload", &job);
    assert_eq!(succeed(&mut world.command_of(&launcher, &[])), "alpha\n");
    job.overlays.clear();
    let without = world.write_launcher("without", &job);
    assert_fails(&world.command_of(&without, &[]).output().expect("starts"), 83, "payload");
}

#[test]
fn overlays_belong_to_the_prefix_and_leave_with_their_launcher() {
    let world = World::new(crate::boot());
    world.run(&["-c", ""]);
    let overlay =
        |text: &str| world.put(LayerKind::Overlay, text, &nodes(&[("over.py", file(&format!("NAME = '{text}'")))]));
    let mut job = world.job.clone();
    job.overlays = vec![overlay("edited")];
    let outer = world.write_launcher("outer", &job);
    job.overlays = vec![overlay("again")];
    let inner = world.write_launcher("inner", &job);
    let framework = world.user_directory("framework");
    std::fs::write(framework.join("beta.py"), "NAME = 'framework'").expect("writes");
    let code = "import beta, os, importlib.util as u\nover = u.find_spec('over') and __import__('over').NAME\n\
                print(over, beta.NAME, os.environ['PYTHONPATH'].split('/')[-1])";
    let run = |program: &std::path::Path, arguments: &[&str]| {
        succeed(world.command_of(program, arguments).env("PYTHONPATH", &framework))
    };
    assert_eq!(run(&outer, &["-c", code]), "edited framework framework\n");
    assert_eq!(world.metrics().last().expect("a start")["layers"]["built"], 1);
    let nested = format!("import subprocess; subprocess.run([{:?}, '-c', {code:?}], check=True)", inner);
    assert_eq!(run(&outer, &["-c", &nested]), "again framework framework\n");
    let plain =
        format!("import subprocess; subprocess.run([{:?}, '-c', {code:?}], check=True)", world.path("env-python"));
    assert_eq!(run(&outer, &["-c", &plain]), "None framework framework\n");
}

#[test]
fn new_environment_reuses_the_layers_that_it_shares() {
    let world = World::new(crate::boot());
    world.run(&["-c", ""]);
    let mut packages = cpack_test::small_world::standard_packages();
    packages[1].1.extend(nodes(&[("site/gamma.py", file("NAME = 'gamma'"))]));
    let changed = World::with(crate::boot(), &packages, |_| {});
    let code = "import gamma; print(gamma.NAME)";
    let output = succeed(changed.command(&["-c", code]).env("CPACK_CACHE_DIR", world.path("cache")));
    assert_eq!(output, "gamma\n");
    let layers = &changed.metrics().pop().expect("a start")["layers"];
    assert_eq!((&layers["built"], &layers["reused"]), (&1.into(), &3.into()));
    assert_eq!(entries(&world.cache().join("environments")).len(), 2);
}

#[test]
fn private_copy_may_be_written_to() {
    let world = World::new(crate::boot());
    world.run(&["-c", ""]);
    let code = "import alpha, os; f = os.path.dirname(alpha.__file__) + '/new'; open(f, 'w').write('x'); \
                open(alpha.__file__, 'a').write('x=1'); print('written')";
    let refused = world.command(&["-c", code]).output().expect("starts");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("PermissionError"));
    assert_eq!(succeed(world.command(&["-c", code]).env("CPACK_WRITABLE", "1")), "written\n");
    // Each starts from the layers, and the next takes away what the last one left.
    assert_eq!(succeed(world.command(&["-c", code]).env("CPACK_WRITABLE", "1")), "written\n");
    assert_eq!(entries(&world.cache().join("private")).len(), 1);
    world.run(&["-c", "import alpha; assert not hasattr(alpha, 'x')"]);
}

/// A package that writes projects: modules, a default configuration beside them, a skeleton that is no package.
fn with_templates() -> World {
    let skeleton = "site/tool/skeleton/project";
    let script = Node::Executable(b"#!/bin/sh\n".to_vec());
    let tool = nodes(&[
        ("site/tool/__init__.py", file("NAME = 'tool'\n")),
        ("site/tool/default.yaml", file("a: 1\n")),
        (&format!("{skeleton}/env.py"), file("import x\n")),
        (&format!("{skeleton}/app/__init__.py"), file("")),
        (&format!("{skeleton}/app/manage.sh"), script),
        ("share/tool/etc.conf", file("b = 2\n")),
    ]);
    World::with(crate::boot(), &[("tool", tool)], |_| {})
}

#[test]
fn tree_gives_programs_copies_that_may_be_written_to() {
    let world = with_templates();
    let code = "
import os, shutil, subprocess, sys, tool
package = os.path.dirname(tool.__file__)
sources = [package + '/default.yaml', package + '/skeleton/project/env.py', sys.prefix + '/share/tool/etc.conf']
for copy in (shutil.copy, shutil.copy2, lambda a, b: subprocess.check_call(['cp', a, b])):
    for source in sources:
        copy(source, 'copied')
        open('copied', 'a').write('more')
        os.remove('copied')
skeleton = package + '/skeleton/project'
for copy in (shutil.copytree, lambda a, b: subprocess.check_call(['cp', '-r', a, b])):
    copy(skeleton, 'project')
    for path in ('env.py', 'app/__init__.py', 'app/manage.sh', 'app/new.py', 'new.py'):
        open('project/' + path, 'a').write('more')
    assert os.access('project/app/manage.sh', os.X_OK)
    shutil.rmtree('project')
print('copied')
";
    for start in ["cold", "warm"] {
        assert_eq!(world.run(&["-c", code]), "copied\n");
        assert_eq!(world.last_start(), start);
    }
    world.check_cache();
}

#[test]
fn tree_refuses_or_keeps_what_programs_write_beside_themselves() {
    let world = with_templates();
    let refused = "
import os, sys, tool
package = os.path.dirname(tool.__file__)
prefix = os.path.dirname(os.path.dirname(os.path.dirname(package)))
for path in ('tool/new', 'tool/__init__.py', 'tool/default.yaml.tmp', 'new.py'):
    try:
        open(os.path.dirname(package) + '/' + path, 'a').write('x = 1')
        sys.exit(path + ' was written')
    except PermissionError:
        pass
for remove, path in ((os.remove, tool.__file__), (os.remove, package + '/default.yaml'), (os.rmdir, sys.prefix + '/share')):
    try:
        remove(path)
        sys.exit(path + ' was removed')
    except PermissionError:
        pass
print('refused')
";
    assert_eq!(world.run(&["-c", refused]), "refused\n");
    // Copies may be written to. This changes only this environment, until `verify` repairs it.
    let change = "
import os, sys, tool
package = os.path.dirname(tool.__file__)
for path in (package + '/default.yaml', package + '/skeleton/project/env.py', sys.prefix + '/share/tool/etc.conf'):
    open(path, 'w').write('changed')
";
    world.run(&["-c", change]);
    world.check_cache();
    let text = world.run(&["--cpack", "verify"]);
    assert!(text.contains("was missing or changed: repaired"), "{text}");
    let read = "import os, tool; print(open(os.path.dirname(tool.__file__) + '/default.yaml').read())";
    assert_eq!(world.run(&["-c", read]), "a: 1\n\n");
    assert!(world.run(&["--cpack", "verify"]).starts_with("checked"));
}

#[test]
fn start_without_a_home_sets_xdg_cache_home() {
    let world = World::new(crate::boot());
    let code = "import os; print(os.environ.get('XDG_CACHE_HOME'))";
    assert_eq!(world.run(&["-c", code]), "None\n");
    let expected = format!("{}\n", world.cache().join("user").display());
    let closed = world.path("closed");
    std::fs::create_dir(&closed).expect("creates");
    std::fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o555)).expect("chmod");
    let closed = closed.display().to_string();
    let write = "import os; p = os.environ['XDG_CACHE_HOME']; open(p + '/x', 'w').close(); print(p)";
    for home in ["/nonexistent", "/", &closed, "/dev/null"] {
        assert_eq!(succeed(world.command(&["-c", write]).env("HOME", home)), expected, "{home}");
    }
    // A value that the user chose stays. A start inside of such a start uses the same cache.
    let chosen = succeed(world.command(&["-c", code]).env("HOME", "/").env("XDG_CACHE_HOME", "/chosen"));
    assert_eq!(chosen, "/chosen\n");
    let launcher = world.path("env-python");
    let nested = format!("import subprocess; subprocess.run([{launcher:?}, '-c', {write:?}], check=True)");
    let mut command = world.command(&["-c", &nested]);
    assert_eq!(succeed(command.env("HOME", "/nonexistent").env_remove("CPACK_CACHE_DIR")), {
        let temporary = world.path("tmp").join(cpack_test::small_world::cache_name()).join("user");
        format!("{}\n", temporary.display())
    });
    assert_eq!(world.last_start(), "warm");
}

#[test]
fn job_s_variables_are_set_and_those_it_needs_are_asked_for() {
    let world = World::with(crate::boot(), &cpack_test::small_world::standard_packages(), |job| {
        job.environ.insert("GIVEN".into(), "by job".into());
        job.pass = vec!["NEEDED".into()];
    });
    assert_fails(&world.command(&[]).output().expect("starts"), 80, "NEEDED");
    let code = "import os; print(os.environ['GIVEN'], os.environ['NEEDED'], 'PYTHONHOME' in os.environ)";
    let output = succeed(world.command(&["-c", code]).env("NEEDED", "1").env("PYTHONHOME", "/nowhere"));
    assert_eq!(output, "by job 1 False\n");
}

#[test]
fn launcher_is_found_by_link_by_path_and_by_a_script_s_first_line() {
    let world = World::new(crate::boot());
    let launcher = world.path("env-python");
    let link = world.path("work/linked");
    std::os::unix::fs::symlink(&launcher, &link).expect("links");
    assert_eq!(succeed(&mut world.command_of(&link, &["-c", "print(1)"])), "1\n");
    let script = world.path("work/script");
    write_executable(&script, format!("#!{}\nimport alpha\nprint(alpha.NAME)\n", launcher.display()).as_bytes());
    assert_eq!(succeed(&mut world.command_of(&script, &[])), "alpha\n");
    let bare = world.path("bare");
    write_executable(&bare, &std::fs::read(env!("CARGO_BIN_EXE_cpack-boot")).expect("reads"));
    std::fs::write(world.path("work/cpack-job.json"), world.job.to_bytes()).expect("writes");
    assert_eq!(succeed(&mut world.command_of(&bare, &["-c", "print(2)"])), "2\n");
    std::fs::rename(world.path("work/cpack-job.json"), world.path("job")).expect("renames");
    assert_fails(&world.command_of(&bare, &[]).output().expect("starts"), 80, "no job");
    assert_eq!(succeed(world.command_of(&bare, &["-c", "print(3)"]).env("CPACK_JOB", world.path("job"))), "3\n");
}
