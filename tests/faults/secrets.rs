//! What must not get out, what must not get in: planted credentials in everything that is said, payloads of other
//! digests, modes, and jobs that try to make the boot write elsewhere.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Output};

use cpack_format::job::{Job, PAYLOAD_NAME, Program};
use cpack_format::manifest::LayerKind;
use cpack_store::Key;
use cpack_test::archives::Node;
use cpack_test::small_world::{World, assert_fails, entries, nodes, succeed};

use crate::inspect::{check, remove};
use crate::kills::{CODE, SEEN, packages};
use crate::random::Part;
use crate::site::Site;

/// In every planted secret, and in nothing else.
const MARK: &str = "PLANTED";

/// Variables with secret values.
const SECRETS: [&str; 9] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "HADOOP_USER_PASSWORD",
    "KRB5CCNAME_CONTENT",
    "PIP_INDEX_URL",
    "GITHUB_TOKEN",
    "DATABASE_URL",
    "MY_PASSWORD",
];

fn plant(command: &mut Command) -> &mut Command {
    SECRETS.iter().for_each(|name| {
        command.env(name, format!("https://user:{MARK}-{name}@host/?X-Amz-Signature={MARK}&X-Amz-Credential={MARK}"));
    });
    command
}

/// Neither stream has a planted secret, nor a dump of all variables.
fn assert_silent(output: &Output, what: &str) {
    for stream in [&output.stdout, &output.stderr] {
        let text = String::from_utf8_lossy(stream);
        assert!(!text.contains(MARK), "{what} told a secret: {text}");
        let named = SECRETS.iter().filter(|name| text.contains(**name)).count();
        assert!(named < 3, "{what} lists variables: {text}");
    }
}

/// No file below has a planted secret.
fn assert_not_kept(directory: &Path, what: &str) {
    for path in entries(directory) {
        let metadata = fs::symlink_metadata(&path).expect("stat");
        if metadata.is_dir() {
            assert_not_kept(&path, what);
        } else if metadata.is_file() {
            let bytes = fs::read(&path).expect("reads");
            let found = bytes.windows(MARK.len()).any(|window| window == MARK.as_bytes());
            assert!(!found, "{what}: {} holds a secret", path.display());
        }
    }
}

/// What a person may run where secrets are.
const COMMANDS: [&[&str]; 11] = [
    &["-c", CODE],
    &["-c", CODE],
    &["--cpack", "info"],
    &["--cpack", "info", "--json"],
    &["--cpack", "status", "--json"],
    &["--cpack", "doctor"],
    &["--cpack", "doctor", "--json"],
    &["--cpack", "verify", "--json"],
    &["--cpack", "prefetch", "--json"],
    &["--cpack", "gc", "--all"],
    &["--cpack", "nonsense"],
];

#[test]
fn planted_secrets_are_neither_said_nor_kept() {
    let world = World::with(crate::boot(), &packages(), |job| {
        job.environ = BTreeMap::from([("GIVEN".into(), format!("{MARK}-given"))]);
    });
    let _part = Part::once("planted secrets");
    for arguments in COMMANDS {
        let mut command = world.command(arguments);
        assert_silent(
            &plant(&mut command)
                .env("CPACK_LOG", "1")
                .env("CPACK_TRACE", world.path("tmp/trace"))
                .output()
                .expect("starts"),
            &format!("{arguments:?}"),
        );
    }
    assert!(world.metrics().len() > 1 && world.path("tmp/trace").exists());
    // Stores, jobs and settings that cannot be used, with secrets in them.
    let change = |change: &dyn Fn(&mut Job)| {
        let mut job = world.job.clone();
        change(&mut job);
        String::from_utf8(job.to_bytes()).expect("JSON")
    };
    let stores = [
        "hdfs://user:PLANTED@nn:8020/s",
        "s3://PLANTED:PLANTED@bucket/s?X-Amz-Signature=PLANTED",
        "ftp://u:PLANTED@h/s",
    ];
    let mut jobs: Vec<String> = stores.iter().map(|store| change(&|job| job.store = (*store).into())).collect();
    jobs.push("https://user:PLANTED@host/job.json?sig=PLANTED".into());
    jobs.push("s3://PLANTED:PLANTED@bucket/job.json".into());
    let bare = world.path("bare");
    cpack_test::small_world::write_executable(&bare, &fs::read(crate::boot()).expect("reads"));
    for job in jobs {
        entries(&world.path("cache")).iter().for_each(|path| remove(path));
        for fault in ["", "layer.file=E5", "cache.created=E28"] {
            let mut command = world.command_of(&bare, &["-c", CODE]);
            let output = plant(&mut command)
                .env("CPACK_JOB", &job)
                .env("CPACK_LOG", "1")
                .env("CPACK_TRACE", world.path("tmp/trace"))
                .env("CPACK_FAULTS", fault)
                .output();
            let output = output.expect("starts");
            assert!(!output.status.success());
            assert_silent(&output, &job.replace(MARK, "…"));
        }
    }
    assert_not_kept(&world.path("tmp"), "metrics");
    assert_not_kept(&world.path("cache"), "the node cache");
    assert_not_kept(&world.path("home"), "the home directory");
}

#[test]
fn clients_neither_tell_nor_send_secrets() {
    let site = Site::new();
    let _part = Part::once("planted secrets of clients");
    let launcher = site.path("home/env-python").display().to_string();
    let commands: [&[&str]; 5] = [
        &["upload", "--name", "mine", "-v"],
        &["launcher", "-o", &launcher, "--env", "MY_PASSWORD"],
        &["info", "--json"],
        &["upload", "--name", "a/b"],
        &["--store", "s3://PLANTED:PLANTED@bucket/x?X-Amz-Signature=PLANTED", "upload"],
    ];
    for arguments in commands {
        let mut command = site.command(crate::cluster_pack());
        let store = site.path("home/store");
        if arguments[0] != "--store" {
            command.arg("--store").arg(store);
        }
        command.args(arguments).arg("--venv").arg(site.path("venv"));
        assert_silent(&plant(&mut command).output().expect("starts"), &format!("{:?}", &arguments[..1]));
    }
    assert_not_kept(&site.store(), "the store");
    assert_not_kept(&site.path("home"), "the client's home");
    // Values that were written out are for the owner; a name alone is no secret, and the umask decides.
    let written = |umask: &str, variable: &str| {
        let script = format!("umask {umask}; exec \"$0\" \"$@\"");
        let mut command = site.command(Path::new("/bin/sh"));
        command.args(["-c", &script]).arg(crate::cluster_pack()).arg("--store").arg(site.store());
        command.args(["launcher", "-o", &launcher, "--env", variable]).arg("--venv").arg(site.path("venv"));
        let _ = fs::remove_file(&launcher);
        let output = plant(&mut command).output().expect("starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let told = String::from_utf8_lossy(&output.stderr).contains("chmod a+rx");
        (fs::metadata(&launcher).expect("a launcher").mode() & 0o7777, told)
    };
    assert_eq!(written("022", "MY_PASSWORD"), (0o755, false));
    assert_eq!(written("077", "MY_PASSWORD"), (0o700, false));
    for umask in ["022", "000"] {
        assert_eq!(written(umask, "MY_PASSWORD=PLANTED"), (0o700, true), "{umask}");
    }
}

/// A payload that writes a mark when it is unpickled.
fn payload(mark: &Path) -> Vec<u8> {
    let call = format!("cbuiltins\nexec\n(Vopen({:?}, 'w').write('ran')\ntR.", mark.display().to_string());
    call.into_bytes()
}

#[test]
fn payload_runs_only_if_job_names_it() {
    let world = World::with(crate::boot(), &packages(), |_| {});
    let _part = Part::once("payloads of another digest");
    let (good, evil) = (world.path("tmp/good"), world.path("tmp/evil"));
    let put = |name: &str, mark: &Path| {
        let nodes = nodes(&[(PAYLOAD_NAME, Node::File(payload(mark)))]);
        world.put(LayerKind::Payload, name, &nodes)
    };
    let (wanted, other) = (put("payload", &good), put("payload", &evil));
    let start = |change: &dyn Fn(&mut Job)| {
        let mut job = world.job.clone();
        job.overlays = vec![wanted.clone()];
        job.entry = Program::Payload(wanted.content);
        change(&mut job);
        let launcher = world.write_launcher("payload-python", &job);
        world.command_of(&launcher, &[]).output().expect("starts")
    };
    let place =
        |layer: &cpack_format::manifest::Layer| world.path("store").join(Key::overlay(&layer.archive.digest).as_str());
    let whole = fs::read(place(&wanted)).expect("reads");
    // A user that can write to the store puts another payload in its place.
    fs::copy(place(&other), place(&wanted)).expect("replaces");
    assert_fails(&start(&|_| {}), 83, "payload");
    // And in the job's list, but not in what it says is to run.
    assert_fails(&start(&|job| job.overlays[0].archive = other.archive.clone()), 83, "payload");
    let output = start(&|job| job.overlays = vec![other.clone()]);
    assert!(!output.status.success(), "a payload that is not there ran");
    assert!(!evil.exists() && !good.exists(), "something ran");
    fs::write(place(&wanted), whole).expect("repairs");
    start(&|_| {});
    assert!(good.exists() && !evil.exists(), "the right one did not run");
}

/// Makes a job malicious.
type ChangeJob<'a> = &'a dyn Fn(&mut Job);

#[test]
fn no_job_makes_the_boot_write_outside_its_cache() {
    let world = World::with(crate::boot(), &packages(), |_| {});
    let _part = Part::once("jobs that aim elsewhere");
    let evil = world.user_directory("evil");
    let variables = [
        "CPACK_CACHE_DIR",
        "CPACK_METRICS",
        "CPACK_JOB",
        "HOME",
        "TMPDIR",
        "XDG_CACHE_HOME",
        "LOCAL_DIRS",
        "LOCAL_USER_DIRS",
        "SPARK_LOCAL_DIRS",
        "CPACK_FAULT_LOG",
        "CPACK_TRACE",
    ];
    let up = "../../../../../../evil/x";
    let changes: [(&str, ChangeJob<'_>); 9] = [
        ("variables", &|job| {
            let value = |name: &&str| ((*name).to_owned(), evil.join(name).display().to_string());
            job.environ = variables.iter().map(value).collect();
        }),
        ("name", &|job| job.name = up.into()),
        ("version", &|job| job.interpreter.version = format!("3.{up}.1")),
        ("absolute version", &|job| job.interpreter.version = format!("{}/a.b.c", evil.display())),
        ("soabi", &|job| job.interpreter.soabi = up.into()),
        ("shipped", &|job| {
            job.interpreter.shipped = true;
            job.interpreter.version = format!("3.{up}.1");
        }),
        ("script", &|job| job.entry = Program::Script(up.into())),
        ("module", &|job| job.entry = Program::Module(up.into())),
        ("cluster", &|job| job.cluster = BTreeMap::from([("hadoop.tmp.dir".into(), evil.display().to_string())])),
    ];
    let before: Vec<_> = entries(&world.path("")).iter().map(|path| path.display().to_string()).collect();
    for (what, change) in changes {
        let mut job = world.job.clone();
        change(&mut job);
        let launcher = world.path("env-python");
        world.write_launcher("env-python", &job);
        let output = world.command_of(&launcher, &["-c", CODE]).output().expect("starts");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() || !error.is_empty(), "{what}");
        assert_eq!(entries(&evil), [] as [std::path::PathBuf; 0], "{what}");
        let after: Vec<_> = entries(&world.path("")).iter().map(|path| path.display().to_string()).collect();
        assert_eq!(before, after, "{what}");
        for root in entries(&world.path("cache")) {
            assert_eq!(root, world.cache(), "{what}");
            let known = ["environments", "jobs", "layers", "locks", "private", "staging"];
            let names = entries(&root);
            assert!(names.iter().all(|p| known.iter().any(|name| p.ends_with(name))), "{what}: {names:?}");
            if what != "shipped" {
                check(&root);
            }
            remove(&root);
        }
    }
    world.write_launcher("env-python", &world.job.clone());
    assert_eq!(succeed(&mut world.command(&["-c", CODE])), SEEN);
}
