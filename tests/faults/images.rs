//! A cache that came with a container's image: used where it is, checked once for a boot of the node, never removed.
//!
//! Real overlayfs, its upper layer in memory, and read-only mounts, each shell script being one container; and the error
//! of overlayfs (`EXDEV`) without a mount.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use cpack_format::manifest::LayerKind;
use cpack_test::small_world::{World, entries, file, is_root, nodes, python, succeed};

use crate::disks::with_mounts;
use crate::inspect::{check, remove};
use crate::kills::{CODE, SEEN, packages};
use crate::random::Part;

/// What a container runs: a start that must see the environment, and one command of `--cpack`.
const START: &str = "$as \"$START\" -c \"$CODE\"";

/// A node on which the image was unpacked, with the boot of it that the processes believe in.
struct Node<'a> {
    world: &'a World,
    boot: &'a str,
}

impl Node<'_> {
    /// The environment is built while the image is made.
    fn bake(&self) {
        let mut command = self.world.command(&["-c", CODE]);
        assert_eq!(succeed(command.env("CPACK_FAULTS", "boot-id=image")), SEEN);
    }

    fn run(&self, mount: &str, commands: &[&str]) -> Output {
        let script = format!("{mount}\n{}", commands.join("\n"));
        let mut command = with_mounts(self.world, &script);
        command.env("CPACK_METRICS", self.world.path("tmp/metrics"));
        let boot = format!("boot-id={}", self.boot);
        command.env("CPACK_FAULTS", boot).output().expect("unshare starts")
    }

    /// A container: the image's cache is the lower layer of overlayfs, what is written ends with the container.
    fn overlay(&self, commands: &[&str]) -> Output {
        let (cache, scratch) = (self.world.path("cache"), self.world.user_directory("scratch"));
        let (cache, scratch) = (cache.display(), scratch.display());
        let owner = if is_root() { format!("chown 65534:65534 {scratch}/u") } else { String::new() };
        let mount = format!(
            "mount -t tmpfs -o mode=755 tmpfs {scratch}; mkdir {scratch}/u {scratch}/w; {owner}\n\
             mount -t overlay overlay -o lowerdir={cache},upperdir={scratch}/u,workdir={scratch}/w {cache}"
        );
        self.run(&mount, commands)
    }

    fn read_only(&self, commands: &[&str]) -> Output {
        let cache = self.world.path("cache");
        let cache = cache.display();
        self.run(&format!("mount --bind {cache} {cache}; mount -o remount,bind,ro {cache}"), commands)
    }

    /// Layers that the last start built, checked and found, and whether it was warm.
    fn last(&self) -> (u64, u64, String) {
        let metrics = self.world.metrics().pop().expect("a start");
        let layers = |name: &str| metrics["layers"][name].as_u64().expect("a number");
        (layers("built"), layers("checked"), self.world.last_start())
    }

    /// The cache that the node's containers share.
    fn home(&self) -> PathBuf {
        self.world.path("home/.cache").join(self.world.cache().file_name().expect("a name"))
    }
}

fn said(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && error.is_empty(), "{}: {error}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Changes a file of a layer in the image, and so in its tree.
fn damage(world: &World) {
    let site = world.environment().join(format!("lib/python{}/site-packages", python().minor));
    let path = site.join("beta.py");
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("chmod");
    fs::write(&path, "NAME = 'BETA'\n").expect("writes");
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o444)).expect("chmod");
}

/// Every byte of a directory, and when each file was changed.
fn snapshot(directory: &Path) -> Vec<(PathBuf, i64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let mut found = Vec::new();
    for path in entries(directory) {
        let metadata = fs::symlink_metadata(&path).expect("stat");
        found.push((path.clone(), metadata.ctime_nsec(), metadata.len()));
        if metadata.is_dir() {
            found.extend(snapshot(&path));
        }
    }
    found
}

#[test]
fn images_in_a_lower_layer_of_overlayfs_are_checked_once_and_used() {
    let world = World::with(crate::boot(), &packages(), |_| {});
    let _part = Part::once("caches in an image: overlayfs");
    let node = Node { world: &world, boot: "node" };
    node.bake();
    let image = snapshot(&world.cache());
    let count = world.manifest.layers.len() as u64;
    assert_eq!(said(&node.overlay(&[START, START])), SEEN.repeat(2));
    let starts = world.metrics();
    let checked = |i: usize| starts[i]["layers"]["checked"].as_u64().expect("a number");
    assert_eq!((checked(1), checked(2), node.last()), (count, 0, (0, 0, "warm".into())));
    // The next container of the image on this node finds the note. Under another boot it checks again.
    assert_eq!(said(&node.overlay(&[START])), SEEN);
    assert_eq!(node.last(), (0, 0, "warm".into()));
    let rebooted = Node { world: &world, boot: "rebooted" };
    assert_eq!(said(&rebooted.overlay(&[START])), SEEN);
    assert_eq!(rebooted.last(), (0, count, "warm".into()));
    assert_eq!(snapshot(&world.cache()), image, "the image was written to");
    assert!(node.home().join("checked").is_dir() && entries(&node.home().join("environments")).is_empty());
    // `gc` says what it cannot remove, and starts go on using it.
    let gc = "sleep 1; $as \"$START\" --cpack gc --all";
    let text = said(&node.overlay(&[gc, "$as \"$START\" --cpack verify", START]));
    assert!(
        text.contains("removed 0 environments, 0 layers") && text.contains("came with the container's image"),
        "{text}"
    );
    assert!(text.contains(&format!("checked {count} layers and 1 environments")) && text.ends_with(SEEN), "{text}");
}

#[test]
fn images_damaged_in_a_lower_layer_are_repaired_by_a_copy() {
    let world = World::with(crate::boot(), &packages(), |_| {});
    let _part = Part::once("caches in an image: damage");
    let node = Node { world: &world, boot: "node" };
    node.bake();
    damage(&world);
    let copy = world.user_directory("copy");
    let keep = format!("$as cp -a {}/. {}/", world.path("cache").display(), copy.display());
    // A start under another boot finds the damage, and `verify` under the same boot.
    let verify = "$as \"$START\" --cpack verify";
    for (boot, commands, words) in [
        ("node", vec![START, START, verify, &keep], "checked 4 layers and 1 environments"),
        ("image", vec![verify, START, &keep], "was damaged"),
    ] {
        let node = Node { world: &world, boot };
        let text = said(&node.overlay(&commands));
        assert!(text.contains(SEEN) && text.contains(words), "{boot}: {text}");
        assert_eq!(node.last().2, "warm");
        let seen = check(&copy.join(world.cache().file_name().expect("a name")));
        assert_eq!((seen.layers, seen.environments), (world.manifest.layers.len(), 1), "{boot}");
        entries(&copy).iter().for_each(|path| remove(path));
    }
}

#[test]
fn images_on_a_read_only_file_system_are_checked_once_and_used() {
    let world = World::with(crate::boot(), &packages(), |_| {});
    let _part = Part::once("caches in an image: read-only");
    let node = Node { world: &world, boot: "node" };
    node.bake();
    let count = world.manifest.layers.len() as u64;
    for expected in [count, 0] {
        assert_eq!(said(&node.read_only(&[START])), SEEN);
        assert_eq!(node.last(), (0, expected, "warm".into()));
    }
    let maintained = ["gc --all", "verify", "prefetch"].map(|what| format!("$as \"$START\" --cpack {what}"));
    let commands: Vec<&str> = maintained.iter().map(String::as_str).collect();
    let text = said(&node.read_only(&commands));
    assert!(text.contains(&format!("{} environments and layers cannot be removed", count + 1)), "{text}");
    // Programs get a directory for their caches there as well.
    let code = "import os; print(os.environ[\"XDG_CACHE_HOME\"])";
    let text = said(&node.read_only(&[&format!("HOME=/nonexistent $as \"$START\" -c '{code}'")]));
    let temporary = world.path("tmp").join(world.cache().file_name().expect("a name"));
    assert_eq!(text, format!("{}\n", temporary.join("user").display()));
    // An overlay is built in a cache that can be written to.
    let overlay = world.put(LayerKind::Overlay, "edited", &nodes(&[("edited.py", file("NAME = 'edited'"))]));
    let mut job = world.job.clone();
    job.overlays = vec![overlay];
    let launcher = world.write_launcher("edited-python", &job);
    let start = format!("$as {} -c 'import alpha, edited; print(alpha.NAME, edited.NAME)'", launcher.display());
    for built in [1, 0] {
        let output = node.read_only(&[&start]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "alpha edited\n");
        // The start that builds in another place than the chosen one says so.
        assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count() as u64, built);
        assert_eq!(node.last().0, built);
    }
    // `verify` says what is damaged, and starts build it elsewhere.
    damage(&world);
    let text = said(&node.read_only(&["$as \"$START\" --cpack verify"]));
    assert!(
        text.contains("it stays, since its file system is read-only, and starts build another elsewhere"),
        "{text}"
    );
    let output = node.read_only(&[START, START]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), SEEN.repeat(2));
    assert_eq!((node.last().2.as_str(), check(&node.home()).environments), ("warm", 1));
}

/// Needs no overlayfs: a fail point refuses every move of a directory of the cache.
#[test]
fn images_with_directories_that_cannot_be_moved_are_repaired_in_place() {
    let world = World::with(crate::boot(), &packages(), |_| {});
    let _part = Part::once("caches in an image: moves refused");
    let node = Node { world: &world, boot: "image" };
    for torn in [false, true] {
        node.bake();
        if torn {
            damage(&world);
        }
        let faults = "boot-id=node,move=E18";
        for expected in ["cold", "warm"] {
            assert_eq!(succeed(world.command(&["-c", CODE]).env("CPACK_FAULTS", faults)), SEEN);
            assert_eq!(world.last_start(), expected, "{torn}");
        }
        let seen = check(&world.cache());
        assert_eq!((seen.layers, seen.environments), (world.manifest.layers.len(), 1));
        let text = succeed(world.command(&["--cpack", "gc", "--all"]).env("CPACK_FAULTS", faults));
        assert!(text.contains("cannot be removed"), "{text}");
        check(&world.cache());
        damage(&world);
        let text = succeed(world.command(&["--cpack", "verify"]).env("CPACK_FAULTS", faults));
        assert!(text.contains("was damaged"), "{text}");
        check(&world.cache());
        entries(&world.path("cache")).iter().for_each(|path| remove(path));
    }
}
