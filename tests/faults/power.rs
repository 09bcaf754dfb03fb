//! Power loss: the changes that a start makes to its cache are recorded, then the cache is put into the state after each
//! of them, with data that was not synced dropped, zeroed or cut, as if the node had been switched off there. A start
//! under another boot of the node uses what is whole and builds the rest.
//!
//! Recorded with `strace`, on the file system as the kernel sees it: nothing depends on what the boot believes it does.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use cpack_test::small_world::{World, entries, is_root, succeed};

use crate::inspect::{check, remove};
use crate::kills::{CODE, SEEN, packages};
use crate::random::{Part, Random, say};

/// What changes a file system, or its data.
const TRACED: &str = "trace=mkdir,mkdirat,open,openat,creat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,\
                      unlink,unlinkat,rmdir,chmod,fchmod,fchmodat,write,pwrite64,fsync,fdatasync,syncfs";

/// One change that a process made.
#[derive(Debug, Clone)]
enum Change {
    Directory(PathBuf, u32),
    File(PathBuf, u32),
    Link(PathBuf, PathBuf),
    HardLink(PathBuf, PathBuf),
    Rename(PathBuf, PathBuf),
    Exchange(PathBuf, PathBuf),
    Remove(PathBuf),
    Mode(PathBuf, u32),
    /// The file is this long afterwards, if it was shorter.
    Data(PathBuf, Option<u64>, u64),
}

#[derive(Debug, Clone)]
enum Body {
    Directory(BTreeMap<String, usize>),
    /// What it holds in the end, and how much of that was written.
    File {
        content: Vec<u8>,
        len: u64,
        durable: bool,
    },
    Link(PathBuf),
}

#[derive(Debug, Clone)]
struct Inode {
    body: Body,
    mode: u32,
}

/// A directory tree in memory. The first inode is its root.
#[derive(Debug, Clone)]
struct Disk {
    root: PathBuf,
    inodes: Vec<Inode>,
}

impl Disk {
    /// What is below `root` now, all of it on disk.
    fn read(root: &Path) -> Self {
        let mut disk = Self { root: root.into(), inodes: Vec::new() };
        disk.scan(root, &mut BTreeMap::new());
        disk
    }

    fn scan(&mut self, path: &Path, seen: &mut BTreeMap<u64, usize>) -> usize {
        let metadata = fs::symlink_metadata(path).expect("stat");
        if let Some(id) = seen.get(&metadata.ino()) {
            return *id;
        }
        let id = self.inodes.len();
        seen.insert(metadata.ino(), id);
        self.inodes.push(Inode { body: Body::Link(PathBuf::new()), mode: metadata.mode() & 0o7777 });
        self.inodes[id].body = if metadata.is_dir() {
            let name = |p: &Path| p.file_name().expect("a name").to_string_lossy().into_owned();
            Body::Directory(entries(path).iter().map(|entry| (name(entry), self.scan(entry, seen))).collect())
        } else if metadata.is_symlink() {
            Body::Link(fs::read_link(path).expect("a link"))
        } else {
            let content = fs::read(path).expect("reads");
            Body::File { len: content.len() as u64, content, durable: true }
        };
        id
    }

    fn find(&self, path: &Path) -> Option<usize> {
        let relative = path.strip_prefix(&self.root).ok()?;
        relative.components().try_fold(0, |at, name| match &self.inodes[at].body {
            Body::Directory(names) => names.get(&*name.as_os_str().to_string_lossy()).copied(),
            _ => None,
        })
    }

    fn names(&mut self, path: &Path) -> (&mut BTreeMap<String, usize>, String) {
        let parent =
            self.find(path.parent().expect("a parent")).unwrap_or_else(|| panic!("{} is nowhere", path.display()));
        let Body::Directory(names) = &mut self.inodes[parent].body else { panic!("{}", path.display()) };
        (names, path.file_name().expect("a name").to_string_lossy().into_owned())
    }

    fn put(&mut self, path: &Path, id: usize) {
        let (names, name) = self.names(path);
        names.insert(name, id);
    }

    fn take(&mut self, path: &Path) -> usize {
        let (names, name) = self.names(path);
        names.remove(&name).unwrap_or_else(|| panic!("{} is not there", path.display()))
    }

    fn add(&mut self, path: &Path, body: Body, mode: u32) {
        self.inodes.push(Inode { body, mode });
        self.put(path, self.inodes.len() - 1);
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Directory(path, mode) => self.add(path, Body::Directory(BTreeMap::new()), *mode),
            Change::File(path, mode) if self.find(path).is_none() => {
                self.add(path, Body::File { content: Vec::new(), len: 0, durable: false }, *mode);
            }
            Change::File(..) => {}
            Change::Link(path, target) => self.add(path, Body::Link(target.clone()), 0o777),
            Change::HardLink(from, to) => {
                let id = self.find(from).expect("a file");
                self.put(to, id);
            }
            Change::Rename(from, to) => {
                let id = self.take(from);
                self.put(to, id);
            }
            Change::Exchange(from, to) => {
                let (a, b) = (self.take(from), self.take(to));
                self.put(from, b);
                self.put(to, a);
            }
            Change::Remove(path) => {
                self.take(path);
            }
            Change::Mode(path, mode) => {
                if let Some(id) = self.find(path) {
                    self.inodes[id].mode = *mode;
                }
            }
            Change::Data(path, offset, written) => {
                if let Some(id) = self.find(path)
                    && let Body::File { len, durable, .. } = &mut self.inodes[id].body
                {
                    *len = (*len).max(offset.unwrap_or(*len) + written);
                    *durable = false;
                }
            }
        }
    }

    /// Gives every file the content that it has on the real disk, where it still is.
    fn learn(&mut self, real: &Disk) {
        let mut pending = vec![(0, 0)];
        while let Some((ours, theirs)) = pending.pop() {
            match (&self.inodes[ours].body, &real.inodes[theirs].body) {
                (Body::Directory(a), Body::Directory(b)) => {
                    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>(), "a change was not recorded");
                    pending.extend(a.values().copied().zip(b.values().copied()));
                }
                (Body::File { len, .. }, Body::File { content, .. }) => {
                    assert_eq!(*len, content.len() as u64, "data was not recorded");
                    let new = content.clone();
                    if let Body::File { content, .. } = &mut self.inodes[ours].body {
                        *content = new;
                    }
                }
                (Body::Link(a), Body::Link(b)) => assert_eq!(a, b),
                (a, b) => panic!("{a:?} is {b:?}"),
            }
            assert_eq!(self.inodes[ours].mode, real.inodes[theirs].mode, "a mode was not recorded");
        }
    }

    /// Makes this state real, with some of the data lost.
    fn write(&self, loss: Loss, random: &mut Random) {
        let mut made = BTreeMap::new();
        let Body::Directory(names) = &self.inodes[0].body else { panic!("no directory") };
        names.iter().for_each(|(name, id)| self.write_one(*id, &self.root.join(name), loss, random, &mut made));
        if is_root() {
            let own = std::process::Command::new("chown").args(["-hR", "65534:65534"]).arg(&self.root).status();
            assert!(own.expect("chown starts").success());
        }
    }

    fn write_one(&self, id: usize, path: &Path, loss: Loss, random: &mut Random, made: &mut BTreeMap<usize, PathBuf>) {
        if let Some(first) = made.get(&id) {
            return fs::hard_link(first, path).expect("links");
        }
        let inode = &self.inodes[id];
        match &inode.body {
            Body::Link(target) => return symlink(target, path).expect("links"),
            Body::Directory(names) => {
                fs::create_dir(path).expect("creates");
                names.iter().for_each(|(name, id)| self.write_one(*id, &path.join(name), loss, random, made));
            }
            Body::File { content, len, durable } => {
                made.insert(id, path.into());
                let loss = if *durable { Loss::Nothing } else { loss };
                fs::write(path, loss.of(content, usize::try_from(*len).expect("small"), random)).expect("writes");
            }
        }
        fs::set_permissions(path, Permissions::from_mode(inode.mode)).expect("chmod");
    }
}

/// What became of data that was not synced.
#[derive(Debug, Clone, Copy)]
enum Loss {
    Nothing,
    /// The file is empty: its length was not written either.
    Dropped,
    Zeroed,
    /// Each file otherwise.
    Mixed,
}

impl Loss {
    fn of(self, content: &[u8], len: usize, random: &mut Random) -> Vec<u8> {
        let mut bytes = content.to_vec();
        bytes.resize(len, 0);
        match self {
            Self::Nothing => {}
            Self::Dropped => bytes.clear(),
            Self::Zeroed => bytes.fill(0),
            Self::Mixed => match random.below(4) {
                0 => bytes.clear(),
                1 => bytes.fill(0),
                2 => bytes[len / 2..].fill(0),
                _ => {}
            },
        }
        bytes
    }
}

/// Runs a start under `strace`, with one thread, since lines of several come in the order in which they were noticed; the changes that it made below `root`, in their order.
fn record(world: &World, arguments: &[&str], faults: &str, root: &Path) -> Vec<Change> {
    let log = world.path("tmp/strace");
    let _ = fs::remove_file(&log);
    let mut command = world.command_of(Path::new("strace"), &["-f", "-qq", "-y", "-s", "4096", "-e", TRACED, "-o"]);
    command.arg(&log).arg(world.path("env-python")).args(arguments).env_remove("CPACK_METRICS");
    let output = command.env("CPACK_FAULTS", faults).env("CPACK_THREADS", "1").output();
    let output = output.unwrap_or_else(|error| panic!("strace cannot be started ({error}): install strace"));
    assert_eq!(String::from_utf8_lossy(&output.stdout), SEEN, "{}", String::from_utf8_lossy(&output.stderr));
    let mut unfinished: BTreeMap<String, String> = BTreeMap::new();
    let mut changes = Vec::new();
    for line in String::from_utf8_lossy(&fs::read(&log).expect("a log")).lines() {
        let Some((pid, line)) = line.split_once(' ') else { continue };
        let mut line = line.trim_start().to_owned();
        if let Some(begun) = line.strip_suffix(" <unfinished ...>") {
            unfinished.insert(pid.into(), begun.into());
            continue;
        }
        if line.starts_with("<... ") {
            let (_, rest) = line.split_once(" resumed>").expect("a resumed call");
            line = unfinished.remove(pid).unwrap_or_default() + rest;
        }
        changes.extend(parse(&line).into_iter().filter(|change| paths(change).iter().all(|p| p.starts_with(root))));
    }
    changes
}

fn paths(change: &Change) -> Vec<&Path> {
    match change {
        Change::HardLink(a, b) | Change::Rename(a, b) | Change::Exchange(a, b) => vec![a, b],
        Change::Directory(a, _) | Change::File(a, _) | Change::Link(a, _) | Change::Remove(a) | Change::Mode(a, _) => {
            vec![a]
        }
        Change::Data(a, ..) => vec![a],
    }
}

/// A line of `strace` as a change; none where it changed nothing.
fn parse(line: &str) -> Option<Change> {
    let (name, rest) = line.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(") = ").or_else(|| rest.rsplit_once(')'))?;
    let result = result.trim_start_matches([' ', '=']);
    if result.starts_with('-') || result.starts_with('?') {
        return None;
    }
    let arguments = split(arguments);
    let text = |i: usize| arguments.get(i).map(|a| a.trim_matches('"')).unwrap_or_default();
    let fd = |i: usize| PathBuf::from(text(i).split_once('<').map_or("", |(_, path)| path.trim_end_matches('>')));
    let at = |i: usize| fd(i).join(text(i + 1));
    let mode = |i: usize| u32::from_str_radix(text(i), 8).unwrap_or(0);
    let umasked = |mode: u32| mode & !0o022;
    Some(match name {
        "mkdir" => Change::Directory(text(0).into(), umasked(mode(1))),
        "mkdirat" => Change::Directory(at(0), umasked(mode(2))),
        "openat" if text(2).contains("O_CREAT") => Change::File(at(0), umasked(mode(3))),
        "open" if text(1).contains("O_CREAT") => Change::File(text(0).into(), umasked(mode(2))),
        "rename" => Change::Rename(text(0).into(), text(1).into()),
        "renameat2" if text(4).contains("EXCHANGE") => Change::Exchange(at(0), at(2)),
        "renameat" | "renameat2" => Change::Rename(at(0), at(2)),
        "link" => Change::HardLink(text(0).into(), text(1).into()),
        "linkat" => Change::HardLink(at(0), at(2)),
        "symlink" => Change::Link(text(1).into(), text(0).into()),
        "symlinkat" => Change::Link(at(1), text(0).into()),
        "unlink" | "rmdir" => Change::Remove(text(0).into()),
        "unlinkat" => Change::Remove(at(0)),
        "chmod" => Change::Mode(text(0).into(), mode(1)),
        "fchmod" => Change::Mode(fd(0), mode(1)),
        "fchmodat" => Change::Mode(at(0), mode(2)),
        "write" => Change::Data(fd(0), None, result.parse().ok()?),
        "pwrite64" => Change::Data(fd(0), Some(text(3).parse().ok()?), result.parse().ok()?),
        _ => return None,
    })
}

/// Arguments of a call: commas in quotes, and in names of descriptors, part nothing.
fn split(text: &str) -> Vec<String> {
    let (mut parts, mut quoted, mut escaped) = (vec![String::new()], false, false);
    for c in text.chars() {
        match c {
            ',' if !quoted => {
                parts.push(String::new());
                continue;
            }
            '"' if !escaped => quoted = !quoted,
            _ => {}
        }
        escaped = quoted && c == '\\' && !escaped;
        parts.last_mut().expect("one").push(c);
    }
    parts.iter().map(|part| part.trim().to_owned()).collect()
}

#[test]
fn start_after_power_loss_uses_whole_layers_and_builds_the_rest_again() {
    let world = World::with(crate::boot(), &packages(), |_| {});
    let place = world.path("cache");
    let part = Part::new("power loss at any change, during a cold start and the start after another loss", 600);
    let mut random = part.random();
    let arguments = ["-c", CODE];
    for (from, faults) in [("nothing", "boot-id=before"), ("another boot", "boot-id=between")] {
        let before = Disk::read(&place);
        let changes = record(&world, &arguments, faults, &place);
        let mut whole = before.clone();
        changes.iter().for_each(|change| whole.apply(change));
        let real = Disk::read(&place);
        whole.learn(&real);
        assert!(changes.len() > 100 || from != "nothing", "only {} changes were recorded", changes.len());
        let renames = (0..=changes.len()).filter(|i| {
            let near = changes.get(i.saturating_sub(1)..(i + 1).min(changes.len())).unwrap_or_default();
            near.iter().any(|c| matches!(c, Change::Rename(..) | Change::Exchange(..)))
        });
        // As many as rounds allow, one in each stretch: all of them in a soak.
        let (states, wanted) = (changes.len() + 1, (part.rounds / 2).min(changes.len() + 1));
        let stretch = |i: usize| states * i / wanted;
        let chosen = (0..wanted).map(|i| stretch(i) + random.below(stretch(i + 1) - stretch(i)));
        let mut prefixes: std::collections::BTreeSet<usize> = chosen.collect();
        prefixes.extend(renames);
        prefixes.insert(changes.len());
        say(&format!("faults: power loss, from {from}: {} of {states} states", prefixes.len()));
        for (round, prefix) in prefixes.into_iter().enumerate() {
            let mut disk = before.clone();
            changes[..prefix].iter().for_each(|change| disk.apply(change));
            // What files are to hold is known from the end.
            for (inode, known) in disk.inodes.iter_mut().zip(&whole.inodes) {
                if let (Body::File { content, .. }, Body::File { content: known, .. }) = (&mut inode.body, &known.body)
                {
                    content.clone_from(known);
                }
            }
            let loss = [Loss::Mixed, Loss::Dropped, Loss::Zeroed, Loss::Nothing][round % 4];
            entries(&place).iter().for_each(|path| remove(path));
            disk.write(loss, &mut random);
            let what = format!("from {from}, after {prefix} of {} changes, data {loss:?}", changes.len());
            for start in ["cold", "warm"] {
                let mut command = world.command(&arguments);
                let seen = succeed(command.env("CPACK_FAULTS", "boot-id=after").env_remove("CPACK_METRICS"));
                assert_eq!(seen, SEEN, "{what}, {start}");
            }
            assert_eq!(check(&world.cache()).environments, 1, "{what}");
        }
        // The next recording begins where this one ended.
        entries(&place).iter().for_each(|path| remove(path));
        whole.write(Loss::Nothing, &mut random);
    }
}
