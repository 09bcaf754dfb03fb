//! SIGKILL at random instants and at every named step, to 1 to 64 processes at once on one cache, then a normal start,
//! then a check of every byte; and the same for processes that pack and upload.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant, SystemTime};

use cpack_format::manifest::LayerKind;
use cpack_store::{FileStore, Store as _};
use cpack_test::archives::{Node, Nodes};
use cpack_test::small_world::{World, entries, file, nodes, noise, spawn, succeed, write_executable};

use crate::inspect::{check, everything, left_over, let_time_pass, remove};
use crate::random::{Part, Random, USUAL_KILLS};
use crate::site::Site;

/// A world whose job has an overlay, too: `over`, with a script.
pub(crate) fn world_with_overlay() -> World {
    let mut world = World::with(crate::boot(), &packages(), |_| {});
    let over = nodes(&[
        ("over.py", file("NAME = 'over'\n")),
        ("over-1.0.data/scripts/over-tool", Node::Executable(b"#!/bin/sh\necho over\n".to_vec())),
    ]);
    world.job.overlays = vec![world.put(LayerKind::Overlay, "over", &over)];
    world.write_launcher("env-python", &world.job.clone());
    world
}

/// What is run with the overlay.
const OVER_CODE: &str = "import alpha, beta, data, over; print(alpha.NAME, beta.NAME)";

pub(crate) const CODE: &str = "import alpha, beta, data; print(alpha.NAME, beta.NAME)";
pub(crate) const SEEN: &str = "alpha beta\n";

/// A small environment that has everything: modules, links, an executable, an empty directory, a file of several frames.
pub(crate) fn packages() -> Vec<(&'static str, Nodes)> {
    let alpha = nodes(&[
        ("site/alpha/__init__.py", file("NAME = 'alpha'\n")),
        ("site/alpha/empty", Node::Directory),
        ("site/alpha/link", Node::Link(b"__init__.py".to_vec())),
        ("bin/alpha-tool", Node::Executable(b"#!/bin/sh\necho tool\n".to_vec())),
    ]);
    let beta = nodes(&[("site/beta.py", file("NAME = 'beta'\n")), ("share/beta/data.txt", file("data"))]);
    let mut data = nodes(&[("site/data/__init__.py", file(""))]);
    for i in 0..40u64 {
        data.extend(nodes(&[(&format!("site/data/d{}/f{i}.bin", i % 5), Node::File(noise(700, i)))]));
    }
    let large = nodes(&[("site/large/lib.so", Node::Executable(noise(3 << 19, 7)))]);
    vec![("alpha", alpha), ("beta", beta), ("data", data), ("large", large)]
}

/// How often each step is passed by what `command` does.
pub(crate) fn steps(command: &mut Command, log: &Path) -> BTreeMap<String, u64> {
    let _ = fs::remove_file(log);
    succeed(command.env("CPACK_FAULT_LOG", log));
    let mut steps = BTreeMap::new();
    for step in fs::read_to_string(log).unwrap_or_default().lines() {
        *steps.entry(step.to_owned()).or_default() += 1;
    }
    steps
}

/// What is started and killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Deed {
    Start,
    Writable,
    Verify,
    Prefetch,
    CleanAll,
}

const DEEDS: [Deed; 5] = [Deed::Start, Deed::Writable, Deed::Verify, Deed::Prefetch, Deed::CleanAll];

/// The test bed: a cache that many use, and the boot of it that the processes believe in.
#[derive(Debug)]
struct Bed<'a> {
    world: &'a World,
    boot: u64,
}

impl Bed<'_> {
    fn command(&self, deed: Deed) -> Command {
        let arguments: &[&str] = match deed {
            Deed::Start | Deed::Writable => &["-c", OVER_CODE],
            Deed::Verify => &["--cpack", "verify"],
            Deed::Prefetch => &["--cpack", "prefetch"],
            Deed::CleanAll => &["--cpack", "gc", "--all"],
        };
        let mut command = self.world.command(arguments);
        // There is only one place for a cache.
        command.env("CPACK_THREADS", "2").env_remove("CPACK_METRICS");
        command.env("HOME", "/").env("TMPDIR", "/").current_dir("/");
        if deed == Deed::Writable {
            command.env("CPACK_WRITABLE", "1");
        }
        self.fault(&mut command, "");
        command
    }

    fn fault(&self, command: &mut Command, fault: &str) {
        command.env("CPACK_FAULTS", format!("boot-id=boot-{},{fault}", self.boot));
    }

    /// Changes what the next round finds.
    fn disturb(&mut self, random: &mut Random) {
        let cache = self.world.cache();
        match random.below(8) {
            0 => self.boot += 1,
            1 | 2 => entries(&cache.join("environments")).iter().for_each(|path| remove(path)),
            3 | 4 => {
                entries(&cache.join("environments")).iter().for_each(|path| remove(path));
                entries(&cache.join("layers")).iter().filter(|_| random.once_in(2)).for_each(|path| remove(path));
            }
            5 | 6 => entries(&self.world.path("cache")).iter().for_each(|path| remove(path)),
            _ => {}
        }
    }
}

/// Kills at these times after now, where there is one; then what became of them.
fn kill_at(children: Vec<(Deed, Child, Option<Duration>)>) -> Vec<(Deed, std::process::Output)> {
    let started = Instant::now();
    let mut order: Vec<_> = (0..children.len()).filter_map(|i| Some((children[i].2?, i))).collect();
    order.sort_unstable();
    let mut children: Vec<_> = children.into_iter().map(|(deed, child, _)| (deed, child)).collect();
    for (at, i) in order {
        std::thread::sleep(at.saturating_sub(started.elapsed()));
        children[i].1.kill().expect("kills");
    }
    children.into_iter().map(|(deed, child)| (deed, child.wait_with_output().expect("ends"))).collect()
}

/// Checks that a process that was not killed did what it should.
fn judge(deed: Deed, output: &std::process::Output, killed: bool) {
    let error = String::from_utf8_lossy(&output.stderr);
    if killed && output.status.signal() == Some(9) {
        return;
    }
    assert!(output.status.success(), "{deed:?}: {}: {error}", output.status);
    if matches!(deed, Deed::Start | Deed::Writable) {
        assert_eq!((&*String::from_utf8_lossy(&output.stdout), &*error), (SEEN, ""), "{deed:?}");
    }
}

#[test]
fn killed_processes_leave_nothing_torn() {
    let world = world_with_overlay();
    let mut node = Bed { world: &world, boot: 0 };
    let cold = Instant::now();
    let log = world.path("tmp/steps");
    let known: BTreeMap<Deed, BTreeMap<String, u64>> =
        DEEDS.map(|deed| (deed, steps(&mut node.command(deed), &log))).into();
    let cold = cold.elapsed() / 3;
    let part = Part::new("kills of starts, repairs and clean-ups", USUAL_KILLS * 17 / 20);
    let mut random = part.random();
    let mut killed = 0;
    for round in 0..part.rounds {
        node.disturb(&mut random);
        let count = if round % 25 == 24 { 64 } else { *random.pick(&[1, 1, 1, 1, 2, 2, 3, 4, 6, 8]) };
        let victims = (0..count).map(|_| {
            let deed = *random.pick(&[
                Deed::Start,
                Deed::Start,
                Deed::Start,
                Deed::Start,
                Deed::Writable,
                Deed::Verify,
                Deed::Prefetch,
                Deed::CleanAll,
            ]);
            let mut command = node.command(deed);
            let mut at = None;
            match random.below(5) {
                0 => {}
                1 | 2 => at = Some(Duration::from_micros(random.below(cold.as_micros() as usize) as u64)),
                _ => {
                    let steps: Vec<_> = known[&deed].iter().collect();
                    let (step, passed) = *random.pick(&steps);
                    node.fault(&mut command, &format!("{step}=kill@{}", random.below(*passed as usize) + 1));
                }
            }
            (deed, spawn(&mut command), at)
        });
        for (deed, output) in kill_at(victims.collect()) {
            killed += usize::from(output.status.signal() == Some(9));
            judge(deed, &output, true);
        }
        assert_eq!(succeed(&mut node.command(Deed::Start)), SEEN, "round {round}");
        let seen = check(&world.cache());
        assert!(seen.environments >= 1 && seen.layers >= world.manifest.layers.len(), "round {round}: {seen:?}");
        if round % 10 == 9 || round + 1 == part.rounds {
            let_time_pass(&world.cache());
            succeed(node.command(Deed::CleanAll).args(["--json"]).env("CPACK_CACHE_LIMIT", "1T"));
            assert_eq!(left_over(&world.cache()), [] as [std::path::PathBuf; 0], "round {round}");
            assert_eq!(everything(&world.cache()), [] as [std::path::PathBuf; 0], "round {round}");
        }
    }
    assert!(killed * 3 > part.rounds, "only {killed} were killed");
}

/// Ways to come to a start, a clean-up or a repair that passes steps of its own, each on an empty cache.
const WAYS: [(&str, Deed); 6] = [
    ("cold", Deed::Start),
    ("another boot", Deed::Start),
    ("private", Deed::Writable),
    ("clean-up", Deed::CleanAll),
    ("torn", Deed::Start),
    ("verify", Deed::Verify),
];

impl Bed<'_> {
    /// Empties the cache and puts there what is found on the way called so.
    fn prepare(&mut self, way: &str) {
        entries(&self.world.path("cache")).iter().for_each(|path| remove(path));
        if way == "cold" {
            return;
        }
        self.start();
        match way {
            "clean-up" => {
                entries(&self.world.cache().join("environments")).iter().for_each(|path| remove(path));
                let mut command = self.command(Deed::Start);
                self.fault(&mut command, "tree.sealed=kill");
                assert!(!command.status().expect("starts").success());
                self.start();
                let_time_pass(&self.world.cache());
            }
            "torn" | "verify" => tear(&self.world.cache()),
            _ => {}
        }
        if way == "torn" || way == "another boot" {
            self.boot += 1;
        }
    }

    /// A start that goes well.
    fn start(&self) {
        assert_eq!(succeed(&mut self.command(Deed::Start)), SEEN);
    }

    /// Kills at a step, then all must be well after a start.
    fn kill_at_step(&mut self, way: &str, deed: Deed, step: &str, at: u64) {
        self.prepare(way);
        let mut command = self.command(deed);
        self.fault(&mut command, &format!("{step}=kill@{at}"));
        let output = command.output().expect("starts");
        assert_eq!(output.status.signal(), Some(9), "{way}: {step} was not passed again");
        self.start();
        if way == "verify" {
            // Under the same boot only `verify` looks at files.
            succeed(&mut self.command(Deed::Verify));
        }
        check(&self.world.cache());
    }
}

#[test]
fn every_named_step_is_passed_and_survived() {
    let world = world_with_overlay();
    let mut bed = Bed { world: &world, boot: 0 };
    let _part = Part::once("a kill at every named step");
    let log = world.path("tmp/steps");
    let mut passed: BTreeSet<String> = BTreeSet::new();
    for (way, deed) in WAYS {
        bed.prepare(way);
        let steps = steps(&mut bed.command(deed), &log);
        for (step, count) in &steps {
            for at in BTreeSet::from([1, count.div_ceil(2)]) {
                bed.kill_at_step(way, deed, step, at);
            }
        }
        passed.extend(steps.into_keys());
    }
    let_time_pass(&world.cache());
    succeed(&mut bed.command(Deed::CleanAll));
    assert_eq!(everything(&world.cache()), [] as [std::path::PathBuf; 0]);
    let declared = cpack_fault::STEPS.iter().filter(|step| !is_packers(step) && !is_of_lazy_starts(step));
    let missed: Vec<_> = declared.filter(|step| !passed.contains(**step)).collect();
    assert_eq!(missed, [] as [&&str; 0], "declared, and passed by nothing");
}

fn is_packers(step: &str) -> bool {
    begins_with(step, &["store.", "publish.", "launcher.", "client."])
}

/// Whether only lazy starts pass it.
pub(crate) fn is_of_lazy_starts(step: &str) -> bool {
    begins_with(step, &["lazy.", "guard.", "witness.", "server."])
}

fn begins_with(step: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| step.starts_with(prefix))
}

/// Empties one file of one layer, as a power loss does.
fn tear(cache: &Path) {
    for layer in entries(&cache.join("layers")) {
        let mut path = layer.join("files/share/beta/data.txt");
        if path.exists() {
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("chmod");
            fs::write(&path, "").expect("tears");
            path.pop();
        }
    }
}

#[test]
fn uploads_and_packs_that_are_killed_leave_nothing_that_is_used() {
    let site = Site::new();
    let log = site.path("tmp/steps");
    let launcher = site.path("home/env-python");
    let (launcher_text, pex) = (launcher.display().to_string(), site.path("home/my.pex").display().to_string());
    let deeds: [&[&str]; 3] =
        [&["upload", "--name", "mine"], &["launcher", "-o", &launcher_text], &["pack", "--format", "pex", "-o", &pex]];
    let part = Part::new("kills of uploads, launchers and packs", USUAL_KILLS * 3 / 20);
    let known: Vec<BTreeMap<String, u64>> = deeds.iter().map(|deed| steps(&mut site.pack(deed), &log)).collect();
    let missed: Vec<_> = cpack_fault::STEPS
        .iter()
        .filter(|step| is_packers(step) && !known.iter().any(|steps| steps.contains_key(**step)))
        .collect();
    assert_eq!(missed, [] as [&&str; 0], "declared, and passed by nothing");
    let mut random = part.random();
    kill_a_writer(&site, deeds[0]);
    let mut killed = 0;
    for round in 0..part.rounds {
        let version = format!("1.{round}");
        site.install("beta", &version, 3000 + round);
        let which = if random.once_in(4) { 2 } else { random.below(2) };
        let count = *random.pick(&[1, 1, 2, 4]);
        let victims = (0..count).map(|_| {
            let mut command = site.pack(deeds[which]);
            let mut at = None;
            if random.once_in(3) || known[which].is_empty() {
                at = Some(Duration::from_millis(random.below(250) as u64));
            } else {
                let steps: Vec<_> = known[which].iter().collect();
                let (step, passed) = *random.pick(&steps);
                command.env("CPACK_FAULTS", format!("{step}=kill@{}", random.below(*passed as usize) + 1));
            }
            (Deed::Start, spawn(&mut command), at)
        });
        for (_, output) in kill_at(victims.collect()) {
            let gone = output.status.signal() == Some(9);
            killed += usize::from(gone);
            assert!(gone || output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        site.check_store();
        succeed_loudly(&mut site.pack(deeds[which]));
        assert!(site.check_store() > 3);
        match which {
            0 => {
                let copy = site.path("home/copy");
                write_executable(&copy, &fs::read(site.store().join("names/mine")).expect("reads"));
                assert_eq!(version_seen(&site, &copy), version, "round {round}: under the name");
            }
            1 => assert_eq!(version_seen(&site, &launcher), version, "round {round}: the launcher"),
            _ => {
                let python = cpack_test::small_world::python().path.display().to_string();
                let mut command = site.command(Path::new(&python));
                let seen = succeed(command.args([&pex, "-c", "import beta; print(beta.VERSION)"]));
                assert_eq!(seen.trim(), version, "round {round}: the PEX");
            }
        }
    }
    assert!(killed * 3 > part.rounds, "only {killed} were killed");
    let swept = FileStore::new(&site.store()).sweep(SystemTime::now() + Duration::from_secs(3600)).expect("sweeps");
    assert!(swept > 0, "no process was killed while it wrote");
    assert_eq!(entries(&site.store().join("tmp")), [] as [std::path::PathBuf; 0]);
}

/// Kills a client while it writes to the store.
fn kill_a_writer(site: &Site, deed: &[&str]) {
    site.install("beta", "0.9", 2999);
    let mut writer = site.pack(deed);
    assert_eq!(writer.env("CPACK_FAULTS", "store.filled=kill").status().expect("starts").signal(), Some(9));
}

fn succeed_loudly(command: &mut Command) {
    let output = command.output().expect("starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn version_seen(site: &Site, launcher: &Path) -> String {
    let mut command = site.command(launcher);
    succeed(command.args(["-c", "import beta; print(beta.VERSION)"])).trim().to_owned()
}
