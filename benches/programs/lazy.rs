//! Lazy starts, beside eager ones and beside the environment itself.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use cpack_test::hadoop::Hdfs;
use cpack_test::programs::{installed, text, utf8};
use cpack_test::proxy::Proxy;
use cpack_test::seaweed::Seaweed;
use cpack_test::site::Site;
use cpack_test::web::{Web, WebServer};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use crate::costs::{ROUNDS, middle, settle, settled, timed};

/// Alternates between eager and lazy cold starts, each on a node of its own, and the environment itself with none of it in memory, until
/// `import torch` is done, and prints medians.
fn import(name: &str, site: &Site, (env, packed): (PathBuf, u64)) {
    let plain = site.launcher(&env);
    let torch = ["-c", "import torch"];
    let (trace, traced) = (site.world.path("trace"), site.world.path("traced-python"));
    timed(site.on_node("recorded", &plain).args(torch).env("CPACK_RECORD", &trace).env("CPACK_FILL", "off"));
    site.pack(&["launcher", "--venv", utf8(&env), "--trace-file", utf8(&trace), "-o", utf8(&traced)]);
    let ways =
        [("eager", &plain, "eager", "cold"), ("lazy", &plain, "lazy", "server"), ("traced", &traced, "lazy", "server")];
    let mut found = ways.map(|_| Vec::new());
    let mut bare = Vec::new();
    for round in 0..ROUNDS {
        for ((way, launcher, start, kind), costs) in ways.iter().zip(&mut found) {
            let node = format!("{way} {round}");
            let wall = settled(site.on_node(&node, launcher).args(torch).env("CPACK_START", start)).wall;
            costs.push((wall, site.fetched(&node, kind, 1) as f64 / packed as f64));
        }
        settle();
        nix::unistd::sync();
        forget_pages(&env);
        bare.push((timed(site.world.command(env.join("bin/python")).args(torch)).wall, 0.0));
    }
    println!(
        "\n{name}: {packed} bytes packed; until `import torch` is done, and the part of the bytes fetched by then"
    );
    let medians = found.each_ref().map(|costs| middle(costs.clone(), |(wall, _)| *wall));
    for (((way, ..), costs), (wall, part)) in ways.iter().zip(&found).zip(medians) {
        let (part, ratio) = (part * 100.0, wall / medians[0].0);
        println!("{way:<8} {wall:>6.2} s  {part:>5.1} %  {ratio:.2} of eager  all: {costs:.2?}");
    }
    let itself = middle(bare.clone(), |(wall, _)| *wall).0;
    println!(
        "itself   {itself:>6.2} s, with a cold page cache; traced takes {:.2} of it  all: {bare:.2?}",
        medians[2].0 / itself
    );
}

/// Uploads the environment that lazy starts are measured with. Its place, and the bytes that were packed.
fn uploaded(site: &Site) -> (PathBuf, u64) {
    let given = std::env::var_os("CPACK_SPEED_VENV").map(PathBuf::from);
    let env = given.unwrap_or_else(|| installed("network-lazy", &["torch==2.8.0"]));
    let packed = site.pack(&["upload", "--venv", utf8(&env)])["packed_bytes"].as_u64().expect("bytes");
    (env, packed)
}

pub(crate) fn s3() {
    let server = Seaweed::start();
    let proxy = Proxy::start(server.port);
    proxy.limit(125_000_000);
    let site = Site::s3(&server, proxy.port);
    import("S3", &site, uploaded(&site));
}

pub(crate) fn local() {
    let site = Site::directory();
    import("directory", &site, uploaded(&site));
}

pub(crate) fn web() {
    let site = Site::directory();
    let environment = uploaded(&site);
    let server = WebServer::start(site.uri.as_ref(), Web::default());
    // What is there already is not sent: a launcher can name it.
    import("web server", &Site { uri: format!("http://127.0.0.1:{}", server.port), ..site }, environment);
}

pub(crate) fn hdfs() {
    let server = Hdfs::start(&["large-blocks"]);
    let site = Site::hdfs(&server, "store");
    import("HDFS", &site, uploaded(&site));
}

/// Drops what the page cache has of the files in `directory`, which are on the disk. The interpreter outside of it stays.
fn forget_pages(directory: &Path) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let entry = entry.expect("an entry");
        let kind = entry.file_type().expect("a kind");
        if kind.is_dir() {
            forget_pages(&entry.path());
        } else if kind.is_file() {
            let file = File::open(entry.path()).expect("opens");
            posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).expect("advises");
        }
    }
}

/// Reads 10,000 small files again and again, and prints the seconds of each pass. On a lazy start, waits until the environment is there.
const READS: &str = "
import os, pathlib, sys, time
def through_open(path):
    with open(path, 'rb') as file: return len(file.read())
def through_calls(path):
    file = os.open(path, os.O_RDONLY)
    try: return len(os.read(file, 1 << 16))
    finally: os.close(file)
prefix = pathlib.Path(sys.prefix)
environments = prefix.parent.parent / 'environments'
while prefix.parent.name == 'served' and not (environments / prefix.name).exists(): time.sleep(0.05)
small = sorted(path for path in prefix.glob('lib/**/*') if path.is_file() and path.stat().st_size <= 1 << 16)[:10000]
assert len(small) == 10000, len(small)
small = [str(path) for path in small]
for read in through_calls, through_open:
    for again in range(5):
        start = time.perf_counter()
        for path in small: read(path)
        print(time.perf_counter() - start)
";

/// What works on a lazy start beside what works in the environment itself, in turn: numpy's and pandas's own tests while the
/// environment is filled, and 10,000 small files once it is.
pub(crate) fn in_use() {
    let site = Site::directory();
    let packages = ["numpy==2.2.6", "pandas==2.2.3", "scipy==1.15.3", "scikit-learn==1.6.1", "matplotlib==3.10.3"];
    let env = installed("network-use", &[packages.as_slice(), &["pytest==8.3.5", "hypothesis==6.131.0"]].concat());
    let launcher = site.launcher(&env);
    let itself = || {
        let mut command = site.world.command(env.join("bin/python"));
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command
    };
    let lazily = |node: &str| {
        let mut command = site.on_node(node, &launcher);
        command.env("PYTHONDONTWRITEBYTECODE", "1").env("CPACK_START", "lazy");
        command
    };
    println!("\nin use: seconds of a lazy start, and of the environment itself");
    for tests in [["numpy.linalg", "numpy.fft", "numpy.polynomial"].as_slice(), &["pandas.tests.groupby.methods"]] {
        let arguments = [["-m", "pytest", "-q", "-p", "no:cacheprovider", "--pyargs"].as_slice(), tests].concat();
        let (mut lazy, mut own) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            lazy.push(settled(lazily(&format!("{} {round}", tests[0])).args(&arguments)).wall);
            own.push(settled(itself().args(&arguments)).wall);
        }
        beside(&format!("own tests of {}", tests.join(", ")), &lazy, &own);
    }
    let (mut lazy, mut own) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        lazy.push(passes(lazily(&format!("reads {round}")).args(["-c", READS])));
        own.push(passes(itself().args(["-c", READS])));
    }
    for (how, first) in [("os.open and os.read", 0), ("open", 5)] {
        let of = |all: &[Vec<f64>], passes: std::ops::Range<usize>| -> Vec<f64> {
            all.iter().map(|one| one[passes.clone()].iter().sum()).collect()
        };
        beside(
            &format!("10,000 files by {how}, the first pass"),
            &of(&lazy, first..first + 1),
            &of(&own, first..first + 1),
        );
        beside(
            &format!("10,000 files by {how}, four more"),
            &of(&lazy, first + 1..first + 5),
            &of(&own, first + 1..first + 5),
        );
    }
}

/// What [`READS`] prints.
fn passes(command: &mut Command) -> Vec<f64> {
    let output = command.output().expect("starts");
    assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
    text(&output.stdout).lines().map(|line| line.parse().expect("seconds")).collect()
}

fn beside(what: &str, lazy: &[f64], own: &[f64]) {
    let (of_lazy, of_own) = (middle(lazy.to_vec(), |wall| *wall), middle(own.to_vec(), |wall| *wall));
    println!("{what:<64} {of_lazy:>6.2} s {of_own:>6.2} s  {:.2}  all: {lazy:.2?} {own:.2?}", of_lazy / of_own);
}
