//! Measures fetching from S3, HDFS and other clouds: `cargo bench --features servers --bench speed -- [PART…]`, on an idle machine.
//!
//! | part | measures |
//! | --- | --- |
//! | `fetch-s3`, `fetch-hdfs` | fetching 2 GB into a file, verified, and a cold start that fetches as much, with its memory, beside `aws s3 cp` and `hdfs dfs -get` of the same object |
//! | `fetch-gs`, `fetch-azure` | the same beside `gcsfs` and `adlfs`, from servers that stand for the clouds |
//! | `pipeline` | a cold start through a network that takes as long as the extraction |
//! | `lazy-local`, `lazy-web`, `lazy-s3`, `lazy-hdfs` | `import torch` on a new node: eager, lazy, lazy with a trace, and from the environment itself, with a cold page cache. The environment is that of `CPACK_SPEED_VENV`, else one with torch |
//! | `lazy-use` | numpy's and pandas's own tests on a lazy start that fills, and 10,000 small files after it, beside the environment itself |
//! | `warm` | a warm start beside bare python |
//!
//! `lazy-s3` lets 125 MB/s through a proxy, which takes processor time and adds to the time of each answer. For `lazy-web` and `lazy-hdfs` limit
//! loopback, in a network namespace where no server talks to itself:
//!
//! ```text
//! unshare --net sh -c 'ip link set lo up; tc qdisc add dev lo root tbf rate 1gbit burst 1mb latency 50ms;
//!     cargo bench --features servers --bench speed -- lazy-web lazy-hdfs'
//! ```
//!
//! Servers, clients and proxy share the machine. Each figure is the median of three, in alternating order. A peer's start-up is
//! that of its `--version`. CPU seconds are those of the client process alone. Fetching without a start is done by a child process
//! of this program, which reads as `cpack-boot` does, because `cpack-boot` writes no archives.
//!
//! Memory is touched and freed before each sample: the first touch of memory that a virtual machine has not used for long takes
//! up to a second per gigabyte. Servers and nodes are in `TMPDIR`.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a program for people who measure")]

mod costs;
mod lazy;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread::available_parallelism;

use cluster_pack::launcher::Launcher;
use cpack_format::Digest;
use cpack_node::building::FETCHES;
use cpack_store::{Key, StoreOptions, StoreUri, open};
use cpack_test::clouds::{Cloud, Kind};
use cpack_test::hadoop::Hdfs;
use cpack_test::programs::{install_by_hand, installed, usual_interpreter, utf8, venv_without_pip};
use cpack_test::proxy::Proxy;
use cpack_test::seaweed::Seaweed;
use cpack_test::site::{self, Site};
use cpack_test::{cached, run};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::costs::{ROUNDS, median, most_memory, settled, show, size, timed};

/// An environment whose one large file fills its layer.
fn large(site: &Site) -> PathBuf {
    let env = site.world.path("venv");
    venv_without_pip(&usual_interpreter(), &env);
    let packages = install_by_hand(&env, "large", "1.0", "");
    let mut file = fs::File::create(packages.join("large.bin")).expect("creates");
    let noise = cpack_test::noise(64 << 20);
    for chunk in 0..size() / noise.len() as u64 {
        // The same nowhere: a store may find repetitions.
        let mask = (chunk as u8).wrapping_mul(37);
        let block: Vec<u8> = noise.iter().map(|byte| byte ^ mask).collect();
        file.write_all(&block).expect("writes");
    }
    let record = packages.join("large-1.0.dist-info/RECORD");
    let record = fs::OpenOptions::new().append(true).open(record);
    record.expect("opens").write_all(b"large.bin,,\n").expect("writes");
    env
}

/// Removes a node's cache, whose trees are read-only.
fn forget(cache: &Path) {
    run(Command::new("chmod").args(["-R", "u+w"]).arg(cache), "coreutils");
    fs::remove_dir_all(cache).expect("removes");
}

/// Fetches the layers of a launcher into files, with as many parallel reads as `cpack-boot`, and verifies each piece.
fn fetch(launcher: &Path, into: &Path) {
    let opened = Launcher::read(launcher, None).expect("a launcher");
    let job = &opened.job;
    let uri = job.store.parse().expect("a URI");
    let store = open(&uri, &StoreOptions::of_process(job.cluster.clone())).expect("opens");
    for layer in opened.manifest().expect("a manifest").expect("its own").layers {
        let file = fs::File::create(into.join(layer.archive.digest.to_string())).expect("creates");
        let key = Key::layer(&layer.archive.digest);
        let pieces = layer.archive.pieces.iter().scan(0, |at, piece| {
            *at += u64::from(piece.size);
            Some((*at - u64::from(piece.size), piece))
        });
        let pieces = Mutex::new(pieces);
        std::thread::scope(|scope| {
            for _ in 0..FETCHES {
                scope.spawn(|| {
                    let mut buffer = Vec::new();
                    loop {
                        let Some((offset, piece)) = pieces.lock().expect("no panic").next() else { break };
                        buffer.resize(piece.size as usize, 0);
                        store.read_range(&key, offset, &mut buffer).expect("reads");
                        assert_eq!(Digest::of(&buffer), piece.digest, "at {offset}");
                        file.write_all_at(&buffer, offset).expect("writes");
                    }
                });
            }
        });
    }
}

/// A command that runs this program to [`fetch`].
fn fetching(site: &Site, launcher: &Path, into: &Path) -> Command {
    let mut command = site.on_node("none", &std::env::current_exe().expect("this program"));
    command.arg("fetch").arg(launcher).arg(into);
    command
}

/// Alternates between [`fetch`], a cold start and a peer. Subtracts a warm start, and the peer's start without work.
fn beside(name: &str, site: &Site, peer: &dyn Fn(&Path) -> Command, start_up: &dyn Fn() -> Command) {
    let env = large(site);
    let report = site.pack(&["upload", "--venv", utf8(&env)]);
    let launcher = site.launcher(&env);
    println!("\n{name}: {} bytes packed", report["packed_bytes"]);
    let (mut alone, mut own, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    let place = site.world.path("downloads");
    for round in 0..ROUNDS {
        let node = format!("{name} {round}");
        own.push(settled(site.on_node(&node, &launcher).args(["-c", ""])));
        for (costs, mut command) in [(&mut alone, fetching(site, &launcher, &place)), (&mut theirs, peer(&place))] {
            fs::create_dir(&place).expect("a directory");
            costs.push(settled(&mut command));
            fs::remove_dir_all(&place).expect("removes");
        }
        if round > 0 {
            forget(&site.world.path(&node));
        }
    }
    let node = format!("{name} memory");
    println!("most memory of the boot: {} MiB", most_memory(site.on_node(&node, &launcher).args(["-c", ""])));
    forget(&site.world.path(&node));
    let warm =
        median((0..ROUNDS).map(|_| timed(site.on_node(&format!("{name} 0"), &launcher).args(["-c", ""]))).collect());
    let idle = median((0..ROUNDS).map(|_| timed(&mut start_up())).collect());
    let (alone, own, theirs) = (median(alone), median(own), median(theirs));
    show("fetch and verify, into a file", alone);
    show("cold start: fetch, verify, extract, python", own);
    show("  of it a warm start", warm);
    show(&format!("{name}: the peer's download"), theirs);
    show("  of it its start-up", idle);
    let theirs = theirs.without(idle);
    for (what, own) in [("fetching alone", alone), ("a cold start", own.without(warm))] {
        println!("{what}: {:.2} times as fast, {:.2} of the CPU seconds", theirs.wall / own.wall, own.cpu / theirs.cpu);
    }
}

fn fetch_s3() {
    let server = Seaweed::start();
    let site = Site::s3(&server, server.port);
    let install = "Python 3 with venv and pip, with access to PyPI";
    let tool = cached("awscli", |place| {
        run(Command::new("python3").args(["-m", "venv"]).arg(place), install);
        run(Command::new(place.join("bin/pip")).args(["install", "--quiet", "awscli"]), install);
    });
    let aws = || {
        let mut command = site.world.command(tool.join("bin/python"));
        command.arg(tool.join("bin/aws")).envs(site.client.iter().map(|(name, value)| (*name, value)));
        command
    };
    let peer = |place: &Path| {
        let mut command = aws();
        command.args(["s3", "cp", "--recursive", "--quiet", &format!("{}/layers", site.uri)]).arg(place);
        command
    };
    let start_up = || {
        let mut command = aws();
        command.arg("--version");
        command
    };
    beside("aws s3 cp", &site, &peer, &start_up);
}

fn fetch_hdfs() {
    let server = Hdfs::start(&["large-blocks"]);
    let site = Site::hdfs(&server, "store");
    let peer = |place: &Path| {
        let mut command = server.shell(&["-get", &format!("{}/layers", server.full_uri("store"))]);
        command.arg(place);
        command
    };
    let start_up = || server.shell(&["-help"]);
    beside("hdfs dfs -get", &site, &peer, &start_up);
}

/// Beside fsspec's drivers: the vendors' own tools need an account, or do not speak to these servers.
fn fetch_cloud(kind: Kind) {
    let server = Cloud::start(kind);
    let site = Site::cloud(&server, server.port);
    let tool = cached("gcsfs-adlfs", |place| {
        let install = "Python 3 with venv and pip, with access to PyPI";
        run(Command::new("python3").args(["-m", "venv"]).arg(place), install);
        run(Command::new(place.join("bin/pip")).args(["install", "--quiet", "gcsfs", "adlfs"]), install);
    });
    let (name, opened) = match kind {
        Kind::Google => {
            ("gcsfs", "gcsfs; f = gcsfs.GCSFileSystem(token='anon', endpoint_url=os.environ['STORAGE_EMULATOR_HOST'])")
        }
        Kind::Azure => (
            "adlfs",
            "adlfs; f = adlfs.AzureBlobFileSystem(connection_string=os.environ['AZURE_STORAGE_CONNECTION_STRING'])",
        ),
    };
    let python = |code: &str| {
        let mut command = site.world.command(tool.join("bin/python"));
        command.args(["-c", &format!("import os, sys, {opened}{code}")]);
        command.envs(site.client.iter().map(|(name, value)| (*name, value)));
        // Otherwise gcsfs asks by gRPC for the kind of each bucket, which no emulator answers, for a minute.
        command.env("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false");
        command
    };
    let path = site.uri.parse::<StoreUri>().expect("a URI").path;
    let peer = |place: &Path| {
        let mut command = python("; f.get(sys.argv[1], sys.argv[2], recursive=True)");
        command.arg(format!("tests/{path}/layers/")).arg(place);
        command
    };
    beside(name, &site, &peer, &|| python(""));
}

/// Pins this thread, and its children, to these cores.
fn keep_to(cores: impl IntoIterator<Item = usize>) {
    let mut set = CpuSet::new();
    cores.into_iter().for_each(|core| set.set(core).expect("a core"));
    sched_setaffinity(Pid::from_raw(0), &set).expect("these cores");
}

/// An extraction from a directory, then the same through a network that takes as long. The node has half the cores, server and
/// proxy the other half, because a real server would not compete with the extraction.
fn pipeline() {
    let cores = available_parallelism().map_or(1, usize::from);
    let of_nodes = (cores / 2).max(1);
    keep_to(of_nodes.min(cores - 1)..cores);
    let server = Seaweed::start();
    let proxy = Proxy::start(server.port);
    let site = Site::s3(&server, proxy.port);
    let packages = ["numpy==2.2.6", "pandas==2.2.3", "scipy==1.15.3", "pyarrow==20.0.0", "scikit-learn==1.6.1"];
    let env = installed("network-speed", &packages);
    let local = Site::directory();
    let from_directory = local.launcher(&env);
    let launcher = site.launcher(&env);
    let report = site.pack(&["upload", "--venv", utf8(&env)]);
    let packed = report["packed_bytes"].as_u64().expect("bytes");
    keep_to(0..of_nodes);
    let cold = |site: &Site, launcher: &Path, node: String| settled(site.on_node(&node, launcher).args(["-c", ""]));
    let extraction = median((0..ROUNDS).map(|i| cold(&local, &from_directory, format!("x{i}"))).collect());
    let mut rate = packed as f64 / extraction.wall;
    let unlimited = median((0..ROUNDS).map(|i| cold(&site, &launcher, format!("u{i}"))).collect());
    let mut places = (0..).map(|i| site.world.path(&format!("downloads {i}"))).inspect(|place| {
        fs::create_dir(place).expect("a directory");
    });
    let mut transfers =
        || median(places.by_ref().take(ROUNDS).map(|place| settled(&mut fetching(&site, &launcher, &place))).collect());
    // What the proxy lets through is not exactly the limit.
    let mut transfer = (0..5).map(|_| {
        proxy.limit(rate as u64);
        let transfer = transfers();
        rate *= transfer.wall / extraction.wall;
        transfer
    });
    let transfer = transfer
        .find(|transfer| (transfer.wall / extraction.wall - 1.0).abs() < 0.1)
        .expect("a rate at which both take equally long");
    let shaped = median((0..ROUNDS).map(|i| cold(&site, &launcher, format!("s{i}"))).collect());
    let warm = median((0..ROUNDS).map(|_| cold(&site, &launcher, "s0".to_owned())).collect());
    println!(
        "\npipeline: {packed} bytes packed, {of_nodes} of {cores} cores, transfer of {:.0} MB/s",
        packed as f64 / transfer.wall / 1e6
    );
    keep_to(0..cores);
    show("extraction alone, from a directory", extraction);
    show("transfer alone, shaped, into files", transfer);
    show("cold start from S3 without a limit", unlimited);
    show("cold start from S3, shaped", shaped);
    show("  of it a warm start", warm);
    println!("cold start over the longer of the two: {:.2}", shaped.wall / extraction.wall.max(transfer.wall));
}

/// Alternates between a warm start and bare python, and prints medians.
fn warm() {
    let server = Seaweed::start();
    let site = Site::s3(&server, server.port);
    let env = site::environment(&site);
    let launcher = site.launcher(&env);
    assert_eq!(site.run("node", &launcher, site::PROBE), site::whole());
    let arguments = ["-I", "-S", "-c", ""];
    let (mut own, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..50 {
        own.push(timed(site.on_node("node", &launcher).args(arguments)));
        bare.push(timed(site.world.command(env.join("bin/python")).args(arguments)));
    }
    let difference = median(own).wall - median(bare).wall;
    println!("\nwarm start: {:.2} ms over bare python", difference * 1e3);
}

fn main() {
    let arguments: Vec<_> = std::env::args_os().collect();
    if let [_, word, launcher, into] = arguments.as_slice()
        && word == "fetch"
    {
        return fetch(launcher.as_ref(), into.as_ref());
    }
    let asked: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let parts: [(&str, fn()); 11] = [
        ("warm", warm),
        ("pipeline", pipeline),
        ("lazy-local", lazy::local),
        ("lazy-web", lazy::web),
        ("lazy-s3", lazy::s3),
        ("lazy-hdfs", lazy::hdfs),
        ("lazy-use", lazy::in_use),
        ("fetch-s3", fetch_s3),
        ("fetch-hdfs", fetch_hdfs),
        ("fetch-gs", || fetch_cloud(Kind::Google)),
        ("fetch-azure", || fetch_cloud(Kind::Azure)),
    ];
    for (name, part) in parts {
        if asked.is_empty() || asked.iter().any(|word| word == name) {
            part();
        }
    }
}
