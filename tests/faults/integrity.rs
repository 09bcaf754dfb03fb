//! One bit flipped, or the end cut off: of job, manifest, layers, launcher and PEX. Refused before anything runs, with
//! the object named.
//!
//! Most of it in process, where ten thousand cases take seconds: what decides is the library that the boot is made of.
//! Samples go through real processes, whose Python would leave a mark if it ran.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use cpack_extract::{BytesSource, Failure, LayerTask, Limits};
use cpack_format::Digest;
use cpack_format::exit::Exit;
use cpack_format::job::{self, Job};
use cpack_format::launcher::{TRAILER_SIZE, Trailer, appendix};
use cpack_format::manifest::{LayerKind, Manifest};
use cpack_format::zip::{MAX_TAIL, read_end};
use cpack_test::archives::{Maker, Node, Nodes};
use cpack_test::extraction::extract_tasks;
use cpack_test::small_world::{World, assert_fails, entries, nodes, noise, spawn, succeed, write_executable};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::crowds::wait_until_stopped;
use crate::inspect::{check, remove};
use crate::kills::{CODE, SEEN, packages};
use crate::random::{Part, say};
use crate::site::Site;

/// Bits flipped in an ordinary run, over all objects.
const FLIPS: usize = 10_000;

/// A layer as it is shipped.
struct Shipped {
    name: &'static str,
    bytes: Vec<u8>,
    archive: cpack_format::manifest::Archive,
}

fn ship(name: &'static str, nodes: &Nodes) -> Shipped {
    let mut maker = Maker::new(20_000);
    for (path, node) in nodes {
        maker.add(path, node, cpack_format::zip::Method::Zstd, 1 << 20);
    }
    let (bytes, archive, _) = maker.layer();
    Shipped { name, bytes, archive }
}

/// Extracts a layer whose bytes are `bytes` into an empty directory.
fn extract(shipped: &Shipped, bytes: &[u8], into: &Path) -> Result<(), Failure> {
    let directory = OwnedFd::from(fs::File::open(into).expect("opens"));
    let task = LayerTask {
        id: 0,
        name: format!("layer {}", shipped.name),
        archive: &shipped.archive,
        source: Box::new(BytesSource(bytes)),
        into: directory,
    };
    let done = AtomicBool::new(false);
    let note = |_| {
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    };
    let result = extract_tasks(vec![task], &Limits::default(), &AtomicBool::new(false), &note);
    assert_eq!(result.is_ok(), done.into_inner(), "a refused layer was handed over");
    result.map(|_| ())
}

/// A layer that is wrong is refused by name, as damaged.
fn assert_refused(shipped: &Shipped, bytes: &[u8], into: &Path, what: &str) {
    let failure = extract(shipped, bytes, into).expect_err(what);
    assert_eq!(failure.exit(), Exit::Artifact, "{what}: {failure:?}");
    assert!(failure.to_string().contains(&format!("layer {}", shipped.name)), "{what}: {failure}");
    entries(into).iter().for_each(|path| remove(path));
}

/// What happens to a layer's file in the store between the moment when it was verified and the one when it is decoded.
type Meanwhile = fn(&Path);

#[test]
fn start_survives_or_names_archive_that_changes_while_it_is_mapped() {
    let table: [(&str, Meanwhile, Option<&str>); 4] = [
        ("cut short", |path| truncate(path, 0), Some("it is shorter than it should be: truncated?")),
        ("cut short by half", |path| truncate(path, fs::metadata(path).expect("stat").len() / 2), Some("truncated?")),
        ("removed", |path| fs::remove_file(path).expect("removes"), None),
        (
            "replaced",
            |path| {
                fs::write(path.with_extension("new"), "new")
                    .and_then(|()| fs::rename(path.with_extension("new"), path))
                    .expect("replaces")
            },
            None,
        ),
    ];
    // One piece, verified before the first of its files is made, and touched again for each of the others: a start that had read it
    // would not notice.
    let files: Vec<_> = (0..4).map(|i| (format!("site/large/{i}.bin"), Node::File(noise(200_000, i)))).collect();
    let files: Vec<_> = files.iter().map(|(path, node)| (path.as_str(), node.clone())).collect();
    let mut packages = packages();
    packages.retain(|(name, _)| *name != "large");
    packages.push(("large", nodes(&files)));
    for (what, meanwhile, error) in table {
        let world = World::with(crate::boot(), &packages, |_| {});
        let large = world.manifest.layers.iter().find(|layer| layer.name == "large").expect("a package");
        let archive = world.path("store").join(large.key().as_str());
        assert_eq!(u64::from(large.archive.pieces[0].size), large.archive.directory, "one piece, then the directory");
        // The longest layer comes first.
        let start = || world.command(&["-c", CODE]);
        let stopped = spawn(start().env("CPACK_FAULTS", "layer.file=stop@1").env("CPACK_THREADS", "1"));
        wait_until_stopped(&stopped);
        let whole = fs::read(&archive).expect("reads");
        meanwhile(&archive);
        kill(Pid::from_raw(stopped.id().cast_signed()), Signal::SIGCONT).expect("signals");
        let output = stopped.wait_with_output().expect("ends");
        fs::write(&archive, whole).expect("repairs");
        match error {
            Some(words) => {
                assert_fails(
                    &output,
                    83,
                    &format!("cpack-boot: cannot extract layer large 1.0: cannot read {}", archive.display()),
                );
                assert_fails(&output, 83, words);
                assert_eq!(world.run(&["-c", CODE]), SEEN, "{what}");
            }
            None => assert_eq!(String::from_utf8_lossy(&output.stdout), SEEN, "{what}: {output:?}"),
        }
        let seen = check(&world.cache());
        assert_eq!(seen.layers, world.manifest.layers.len(), "{what}");
    }
}

fn truncate(path: &Path, length: u64) {
    fs::File::options().write(true).open(path).and_then(|file| file.set_len(length)).expect("truncates");
}

#[test]
fn ten_thousand_flipped_bits_are_refused_by_name() {
    let part = Part::new("flipped bits of layers, manifest and job", FLIPS);
    let mut random = part.random();
    let layers: Vec<Shipped> = packages().iter().map(|(name, nodes)| ship(name, nodes)).collect();
    let world = World::with(crate::boot(), &packages(), |_| {});
    let launcher = fs::read(world.path("env-python")).expect("reads");
    let start = usize::try_from(fs::metadata(crate::boot()).expect("stat").len()).expect("small");
    let manifest = world.manifest.to_bytes();
    let directory = tempfile::tempdir().expect("a directory");
    for _ in 0..part.rounds {
        match random.below(10) {
            0..8 => {
                // The small ones more often than their share of bytes.
                let shipped = if random.once_in(2) { &layers[random.below(3)] } else { &layers[random.below(4)] };
                let mut bytes = shipped.bytes.clone();
                let at = random.below(bytes.len());
                bytes[at] ^= 1 << random.below(8);
                assert_refused(shipped, &bytes, directory.path(), &format!("{} at {at}", shipped.name));
            }
            8 => {
                // The boot compares the bytes with the id that the job names before it parses them.
                let mut bytes = manifest.clone();
                let at = random.below(bytes.len());
                bytes[at] ^= 1 << random.below(8);
                assert_ne!(Digest::of(&bytes), world.job.environment, "manifest at {at}");
            }
            _ => {
                let mut bytes = launcher[start..].to_vec();
                // The first bytes of the trailer say whether there is a job at all.
                let at = random.below(bytes.len() - TRAILER_SIZE);
                bytes[at] ^= 1 << random.below(8);
                assert!(job_of(&bytes, start).is_err(), "launcher at {at} of its job part");
            }
        }
    }
}

/// The job in the appended part of a launcher, as the boot finds it.
fn job_of(appended: &[u8], start: usize) -> Result<Job, String> {
    let size = (start + appended.len()) as u64;
    let tail = &appended[appended.len() - TRAILER_SIZE..];
    let trailer = Trailer::read(tail, size).map_err(|e| e.to_string())?.ok_or("no launcher")?;
    let from = usize::try_from(trailer.start).ok().and_then(|at| at.checked_sub(start)).ok_or("elsewhere")?;
    let len = usize::try_from(trailer.size).map_err(|e| e.to_string())?;
    let bytes = appended.get(from..).and_then(|rest| rest.get(..len)).ok_or("too short")?;
    let opened = trailer.open(bytes).map_err(|e| e.to_string())?;
    Job::parse(opened.file(job::FILE_NAME).ok_or("no job")?).map_err(|e| e.to_string())
}

#[test]
fn every_truncation_of_a_small_layer_and_launcher_is_refused() {
    let _part = Part::once("truncations");
    let shipped = ship("alpha", &packages()[0].1);
    let directory = tempfile::tempdir().expect("a directory");
    extract(&shipped, &shipped.bytes, directory.path()).expect("whole");
    entries(directory.path()).iter().for_each(|path| remove(path));
    for len in 0..shipped.bytes.len() {
        assert_refused(&shipped, &shipped.bytes[..len], directory.path(), &format!("{len} bytes"));
    }
    let world = World::with(crate::boot(), &packages(), |_| {});
    let (manifest, job) = (world.manifest.to_bytes(), world.job.to_bytes());
    let appended = appendix(5000, &[(job::FILE_NAME, &job), (job::MANIFEST_NAME, &manifest)]);
    assert!(job_of(&appended, 5000).is_ok());
    for len in TRAILER_SIZE..appended.len() {
        assert!(job_of(&appended[..len], 5000).is_err(), "{len} bytes of a launcher's job part");
    }
    for len in 0..job.len() {
        assert!(Job::parse(&job[..len]).is_err(), "{len} bytes of a job");
    }
    for len in 0..manifest.len() {
        assert!(Manifest::parse(&manifest[..len]).is_err(), "{len} bytes of a manifest");
    }
}

/// A job that has everything: an overlay and a payload beside its environment.
fn world_with_all() -> World {
    let world = World::with(crate::boot(), &packages(), |_| {});
    let overlay =
        world.put(LayerKind::Overlay, "over", &nodes(&[("over.py", cpack_test::small_world::file("NAME = 'over'\n"))]));
    let mut job = world.job.clone();
    job.overlays = vec![overlay];
    world.write_launcher("env-python", &job);
    world
}

/// Marks that Python ran.
fn marking(world: &World) -> String {
    format!("open({:?}, 'w').write('ran')\n{CODE}", world.path("tmp/ran").display().to_string())
}

/// Starts that find something wrong never run Python: real processes, at random places of each object.
#[test]
fn real_starts_refuse_flipped_and_cut_objects_before_python_runs() {
    let part = Part::new("flipped bits and truncations through real starts", 60);
    let mut random = part.random();
    let world = world_with_all();
    let code = marking(&world);
    let mut objects: Vec<_> = entries(&world.path("store/layers")).iter().flat_map(|shard| entries(shard)).collect();
    objects.extend(entries(&world.path("store/overlays")).iter().flat_map(|shard| entries(shard)));
    assert_eq!(objects.len(), 5);
    let launcher = world.path("env-python");
    for _ in 0..part.rounds {
        entries(&world.path("cache")).iter().for_each(|path| remove(path));
        let flip = |bytes: &mut Vec<u8>, random: &mut crate::random::Random, from: usize| {
            let at = from + random.below(bytes.len() - from);
            if random.once_in(4) {
                bytes.truncate(at);
            } else {
                bytes[at] ^= 1 << random.below(8);
            }
        };
        if random.once_in(4) {
            let mut bytes = fs::read(&launcher).expect("reads");
            let (start, end) = (fs::metadata(crate::boot()).expect("stat").len(), bytes.len() - TRAILER_SIZE);
            let at = usize::try_from(start).expect("small");
            let at = at + random.below(end - at);
            bytes[at] ^= 1 << random.below(8);
            let bad = world.path("bad-python");
            write_executable(&bad, &bytes);
            let output = world.command_of(&bad, &["-c", &code]).output().expect("starts");
            assert_fails(&output, 83, "copy the launcher again");
        } else {
            let path = random.pick(&objects);
            let whole = fs::read(path).expect("reads");
            let mut bytes = whole.clone();
            flip(&mut bytes, &mut random, 0);
            fs::write(path, &bytes).expect("writes");
            let output = world.command(&["-c", &code]).output().expect("starts");
            assert_fails(&output, 83, "layer ");
            fs::write(path, &whole).expect("repairs");
        }
        assert!(!world.path("tmp/ran").exists(), "Python ran");
    }
    assert_eq!(succeed(&mut world.command(&["-c", &code])), SEEN);
    assert!(world.path("tmp/ran").exists(), "the mark is none");
}

/// Runs a command that may hang because of a flipped bit. Kills it after 20 seconds and returns `None`.
fn output_in_time(command: &mut Command) -> Option<Output> {
    let mut child = spawn(command);
    let until = Instant::now() + Duration::from_secs(20);
    while child.try_wait().expect("a state").is_none() {
        if Instant::now() > until {
            child.kill().expect("kills");
            child.wait().expect("ends");
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Some(child.wait_with_output().expect("ends"))
}

/// The kernel runs the executable before the job, damaged or not. It must leave nothing that the next start trusts, and must
/// not succeed if something is wrong.
#[test]
fn launcher_with_damaged_executable_leaves_nothing_wrong() {
    let part = Part::new("flipped bits of a launcher's executable", 16);
    let mut random = part.random();
    let world = World::with(crate::boot(), &packages(), |_| {});
    let whole = fs::read(world.path("env-python")).expect("reads");
    let end = usize::try_from(fs::metadata(crate::boot()).expect("stat").len()).expect("small");
    let bad = world.path("bad-python");
    let (mut well, mut refused) = (0, 0);
    for _ in 0..part.rounds {
        entries(&world.path("cache")).iter().for_each(|path| remove(path));
        let mut bytes = whole.clone();
        // What the kernel and the loader read is at the beginning: half of the flips are there.
        let region = if random.once_in(2) { 8192 } else { end };
        let at = random.below(region);
        bytes[at] ^= 1 << random.below(8);
        write_executable(&bad, &bytes);
        let script = format!("ulimit -v 8000000; exec {} -c '{CODE}'", bad.display());
        let output = output_in_time(&mut world.command_of(Path::new("/bin/sh"), &["-c", &script]));
        match output {
            Some(output) if output.status.success() => {
                assert_eq!(String::from_utf8_lossy(&output.stdout), SEEN, "at {at}");
                well += 1;
            }
            _ => refused += 1,
        }
        assert_eq!(succeed(&mut world.command(&["-c", CODE])), SEEN, "after a flip at {at}");
        crate::inspect::check(&world.cache());
    }
    say(&format!("faults: {well} started as if nothing were, {refused} did not start"));
}

/// The files of the one environment in a cache, without the records of the boot.
fn files_of(cache: &Path) -> BTreeMap<PathBuf, Digest> {
    let environments = entries(&cache.join("environments"));
    let [tree] = &environments[..] else { panic!("{environments:?}") };
    let mut found = BTreeMap::new();
    crate::inspect::collect(tree, tree, &mut found);
    let all = found.into_iter().filter(|(path, _)| !path.starts_with(".cpack"));
    all.map(|(path, (_, digest))| (path, digest)).collect()
}

/// A PEX that lies on this machine has no digests but its entries' CRC-32: one flipped bit of it is refused, or lies where
/// it changes nothing of what is extracted.
#[test]
fn local_pex_with_flipped_bits_is_refused_or_extracted_as_it_was() {
    let part = Part::new("flipped bits of a local PEX", 120);
    let mut random = part.random();
    // Most of the file is content: a flip in the runtime that plain Python would use changes nothing here.
    let site = Site::with(&[("alpha", 300), ("beta", 3_000_000)]);
    let pex = site.path("home/my.pex");
    succeed(&mut site.pack(&["pack", "--format", "pex", "-o", &pex.display().to_string()]));
    let (cache, mark) = (site.cache(), site.path("tmp/ran"));
    let code = format!(
        "open({:?}, 'w').write('ran')\nimport alpha, beta; print(alpha.NAME, beta.NAME)",
        mark.display().to_string()
    );
    let start = || {
        entries(&site.path("home/node")).iter().for_each(|path| remove(path));
        let _ = fs::remove_file(&mark);
        let mut command = site.command(crate::boot());
        command
            .args(["--cpack", "exec"])
            .arg(&pex)
            .args(["-c", &code])
            .env_remove("CPACK_BOOT")
            .output()
            .expect("starts")
    };
    let output = start();
    assert_eq!(String::from_utf8_lossy(&output.stdout), SEEN, "{}", String::from_utf8_lossy(&output.stderr));
    let whole = fs::read(&pex).expect("reads");
    let expected = files_of(&cache);
    assert!(mark.exists() && expected.len() > 8, "{expected:?}");
    let end = read_end(&whole[whole.len().saturating_sub(MAX_TAIL)..], whole.len() as u64).expect("a zip");
    let directory = usize::try_from(end.directory_offset).expect("small");
    let (mut refused, mut same) = (0, 0);
    for _ in 0..part.rounds {
        let mut bytes = whole.clone();
        // The directory is small, and what lies there decides most.
        let from = if random.once_in(4) { directory } else { 0 };
        let at = from + random.below(bytes.len() - from);
        let bit = random.below(8);
        bytes[at] ^= 1 << bit;
        fs::write(&pex, &bytes).expect("writes");
        let output = start();
        let error = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            assert_eq!(String::from_utf8_lossy(&output.stdout), SEEN, "bit {bit} of byte {at}");
            assert_eq!(files_of(&cache), expected, "bit {bit} of byte {at}");
            same += 1;
        } else {
            assert_fails(&output, output.status.code().unwrap_or_default(), "my.pex");
            assert!(matches!(output.status.code(), Some(82 | 83)), "bit {bit} of byte {at}: {error}");
            assert!(!mark.exists(), "bit {bit} of byte {at}: Python ran");
            refused += 1;
        }
    }
    say(&format!("faults: {refused} flipped PEX files were refused, {same} extracted as they were"));
    // About half: the rest lies in the runtime that plain Python would use.
    assert!(refused * 4 > part.rounds && same > 0, "{refused} refused, {same} the same");
}
