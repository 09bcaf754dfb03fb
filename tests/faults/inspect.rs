//! Looks at every byte of a node cache, by itself: nothing here is what the boot checks with but the content digest.

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use cpack_format::Digest;
use cpack_format::manifest::Manifest;
use cpack_test::small_world::entries;

/// What was found in a cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) layers: usize,
    pub(crate) environments: usize,
}

/// Every layer in the cache at `root` is what its name says; every environment is what its manifest says, file by file.
pub(crate) fn check(root: &Path) -> Seen {
    let mut seen = Seen::default();
    if !root.exists() {
        return seen;
    }
    assert_eq!(fs::metadata(root).expect("stat").mode() & 0o7777, 0o700, "{}", root.display());
    for layer in entries(&root.join("layers")) {
        let name = layer.file_name().and_then(|n| n.to_str()).expect("a name").to_owned();
        let found = cpack_node::cache::content_of(&layer.join("files"), 1, &|| {}).expect("a layer's files");
        assert_eq!(found.to_hex(), name, "a layer is torn");
        let state = fs::read(layer.join("state")).expect("a state");
        let size = String::from_utf8_lossy(&state).lines().nth(1).and_then(|size| size.parse::<u64>().ok());
        assert!(size.is_some(), "{name} does not tell its size");
        closed(&layer.join("files"), true);
        seen.layers += 1;
    }
    for tree in entries(&root.join("environments")) {
        check_tree(root, &tree);
        seen.environments += 1;
    }
    for job in entries(&root.join("jobs")) {
        check_job(&job);
    }
    seen
}

/// A job prefix is whole: its records say what its name says, and what it has of the environment are links to it.
fn check_job(job: &Path) {
    let shown = job.display();
    let name = job.file_name().and_then(|n| n.to_str()).expect("a name");
    let (key, _) = name.rsplit_once('-').expect("a key and a digest");
    let list = fs::read_to_string(job.join(".cpack/overlays")).expect("a list");
    assert!(list.lines().count() > 0 && list.lines().all(|line| line.starts_with("layers/")), "{shown}: {list}");
    // A tree in a cache that cannot be written to is named by its absolute path.
    let is_elsewhere = job.join(".cpack/tree").exists();
    assert!(fs::metadata(job.join(".cpack/lease")).expect("a lease").len() > 0, "{shown}");
    assert!(fs::metadata(job.join("pyvenv.cfg")).expect("a configuration").len() > 0, "{shown}");
    let lib = fs::read_link(job.join("lib")).expect("a link");
    let tree = Path::new("environments").join(key).join("lib");
    assert!(
        if is_elsewhere { lib.is_absolute() && lib.ends_with(&tree) } else { lib == Path::new("../..").join(&tree) },
        "{shown}: {lib:?}"
    );
    let names: Vec<_> = entries(&job.join("bin")).iter().map(|p| p.file_name().expect("a name").to_owned()).collect();
    let tools = if is_elsewhere { &[][..] } else { &["alpha-tool", "over-tool"] };
    let whole = tools.iter().chain(&["python", "python3"]);
    assert!(whole.into_iter().all(|name| names.iter().any(|found| found == name)), "{shown}: {names:?}");
    closed(job, false);
    closed_to_others(job, &job.join("bin"));
}

/// Checks that no user may write to what is below, and no file has a special bit.
fn closed(path: &Path, layer: bool) {
    let metadata = fs::symlink_metadata(path).expect("stat");
    if metadata.is_symlink() {
        return;
    }
    let mode = metadata.mode() & 0o7777;
    assert_eq!(mode & 0o7000, 0, "{} has mode {mode:o}", path.display());
    assert!(!layer || mode & 0o222 == 0, "{} has mode {mode:o}", path.display());
    if metadata.is_dir() {
        entries(path).iter().for_each(|entry| closed(entry, layer));
    }
}

/// A tree holds the files of its layers, those that make it an environment, and nothing else.
fn check_tree(root: &Path, tree: &Path) {
    let shown = tree.display();
    let description: serde_json::Value =
        serde_json::from_slice(&fs::read(tree.join(".cpack/environment.json")).expect("a description")).expect("JSON");
    let bytes = fs::read(tree.join(".cpack/manifest.json")).expect("a manifest");
    assert_eq!(description["environment"], Digest::of(&bytes).to_hex(), "{shown}");
    let manifest = Manifest::parse(&bytes).expect("a manifest");
    let mut expected = BTreeMap::new();
    for layer in &manifest.layers {
        let files = root.join("layers").join(layer.content.to_hex()).join("files");
        // A layer that was cleaned up is checked by the digests of those trees that still link it.
        if files.is_dir() {
            collect(&files, &files, &mut expected);
        }
    }
    let whole = manifest.layers.iter().all(|l| root.join("layers").join(l.content.to_hex()).is_dir());
    let mut found = BTreeMap::new();
    collect(tree, tree, &mut found);
    for (path, file) in &expected {
        assert_eq!(found.get(path), Some(file), "{shown}: {}", path.display());
    }
    let own = |path: &Path| {
        let bin =
            path.starts_with("bin") && path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("python"));
        bin || path.starts_with(".cpack")
            || path == Path::new("pyvenv.cfg")
            || path == Path::new("lib64")
            || path.ends_with("site-packages/_cpack_overlays.pth")
    };
    if whole {
        let strange = found.keys().find(|path| !expected.contains_key(*path) && !own(path));
        assert_eq!(strange, None, "{shown}");
    }
    closed(tree, false);
    // The top directory may be writable, if a start was killed between renaming it and taking the permission away.
    for entry in entries(tree) {
        if entry.is_dir() && !entry.is_symlink() && !entry.ends_with(".cpack") {
            closed_to_others(tree, &entry);
        }
    }
}

/// Asserts that files shared with a layer cannot be written to, nor the directories that they are in. Only directories of
/// resources may be open: `share`, `etc`, and directories below a package.
fn closed_to_others(tree: &Path, path: &Path) {
    let is_open = fs::metadata(path).expect("stat").mode() & 0o222 != 0;
    let relative = path.strip_prefix(tree).expect("below");
    let resource = relative.starts_with("share") || relative.starts_with("etc") || relative.components().count() > 4;
    assert!(!is_open || resource, "{} is open", path.display());
    for entry in entries(path).iter().filter(|entry| !entry.is_symlink()) {
        let metadata = fs::metadata(entry).expect("stat");
        if metadata.is_dir() {
            closed_to_others(tree, entry);
            continue;
        }
        let writable = metadata.mode() & 0o222 != 0;
        assert!(
            !writable || (metadata.mode() & 0o222 == 0o200 && metadata.nlink() == 1),
            "{} is open",
            entry.display()
        );
        assert!(!is_open || writable, "{} is in an open directory", entry.display());
    }
}

/// Digests of files and targets of links, by path.
pub(crate) fn collect(root: &Path, directory: &Path, found: &mut BTreeMap<PathBuf, (bool, Digest)>) {
    for path in entries(directory) {
        let metadata = fs::symlink_metadata(&path).expect("stat");
        let relative = path.strip_prefix(root).expect("below").to_owned();
        if metadata.is_dir() {
            collect(root, &path, found);
        } else if metadata.is_symlink() {
            let target = fs::read_link(&path).expect("a link");
            found.insert(relative, (false, Digest::of(target.as_os_str().as_encoded_bytes())));
        } else {
            found.insert(relative, (metadata.mode() & 0o111 != 0, Digest::of(&fs::read(&path).expect("reads"))));
        }
    }
}

/// What builders and cleaners left behind: nothing, after a clean-up.
pub(crate) fn left_over(root: &Path) -> Vec<PathBuf> {
    ["staging", "private"].iter().flat_map(|name| entries(&root.join(name))).collect()
}

/// Everything but the directories of the cache themselves.
pub(crate) fn everything(root: &Path) -> Vec<PathBuf> {
    ["staging", "private", "jobs", "layers", "environments", "locks"]
        .iter()
        .flat_map(|n| entries(&root.join(n)))
        .collect()
}

/// Makes what dead processes left old enough to be cleaned up, as if a day had passed.
pub(crate) fn let_time_pass(root: &Path) {
    let old = SystemTime::now() - Duration::from_secs(48 * 3600);
    let age = |path: &Path| {
        if let Ok(file) = File::open(path) {
            let _ = file.set_times(FileTimes::new().set_modified(old));
        }
    };
    for path in everything(root) {
        age(&path);
        age(&path.join("state"));
        age(&path.join(".cpack/lease"));
    }
}

/// Opens a tree so that it can be removed.
pub(crate) fn remove(path: &Path) {
    let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
    cpack_node::cache::remove_tree(path, None).expect("removes");
}

/// An inspection that notices nothing would let everything pass.
#[test]
fn inspection_notices_what_is_torn() {
    use crate::kills::{CODE, SEEN, packages};
    let world = cpack_test::small_world::World::with(crate::boot(), &packages(), |_| {});
    let site = |world: &cpack_test::small_world::World| {
        world.environment().join(format!("lib/python{}/site-packages", cpack_test::small_world::python().minor))
    };
    let open = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
    type Damage<'a> = &'a dyn Fn(&Path);
    let damages: [(&str, Damage<'_>); 5] = [
        ("a changed byte", &|site| {
            open(&site.join("beta.py"), 0o644);
            fs::write(site.join("beta.py"), "NAME = 'BETA'\n").expect("writes");
            open(&site.join("beta.py"), 0o444);
        }),
        ("a missing file", &|site| fs::remove_file(site.join("beta.py")).expect("removes")),
        ("a strange file", &|site| fs::write(site.join("strange.py"), "").expect("writes")),
        ("an open file", &|site| open(&site.join("beta.py"), 0o644)),
        ("an open directory", &|_| {}),
    ];
    for (what, damage) in damages {
        assert_eq!(cpack_test::small_world::succeed(&mut world.command(&["-c", CODE])), SEEN);
        check(&world.cache());
        let site = site(&world);
        open(&site, 0o755);
        damage(&site);
        if what != "an open directory" {
            open(&site, 0o555);
        }
        let noticed = std::panic::catch_unwind(|| check(&world.cache())).is_err();
        assert!(noticed, "{what} was not noticed");
        entries(&world.path("cache")).iter().for_each(|path| remove(path));
    }
}
