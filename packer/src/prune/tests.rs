use std::fs::{File, FileTimes};
use std::path::Path;

use cpack_format::job::Interpreter;
use cpack_format::manifest::{Archive, Layer, LayerKind, Python};
use cpack_store::{FileStore, Written};
use tempfile::TempDir;

use super::*;
use crate::launcher::Launcher;
use crate::publish::{NameRecord, publish_launcher, publish_manifest, publish_name};

const DAY: Duration = Duration::from_secs(86_400);

/// A store whose objects are as old as is wanted.
struct Shelf {
    directory: TempDir,
    store: FileStore,
}

impl Shelf {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self { store: FileStore::new(directory.path()), directory }
    }

    fn age(&self, key: &Key, days: u32) {
        let time = SystemTime::now() - DAY * days;
        let file = File::open(self.directory.path().join(key.as_str())).expect("an object");
        file.set_times(FileTimes::new().set_modified(time)).expect("sets its time");
    }

    fn layer(&self, kind: LayerKind, name: &str, days: u32) -> Layer {
        let digest = Digest::of(name.as_bytes());
        let archive = Archive::named(digest);
        let key = kind.key(&digest);
        self.store.put(&key, Source::Bytes(b""), Put::Replace).expect("writes");
        self.age(&key, days);
        let content = Digest::of(format!("content of {name}").as_bytes());
        if kind == LayerKind::Distribution {
            self.store.put(&Key::content(&content), Source::Bytes(b"{}"), Put::Replace).expect("writes");
            self.age(&Key::content(&content), days);
        }
        Layer::new(kind, name.to_owned(), content, archive)
    }

    fn environment(&self, layers: &[&str], days: u32) -> Digest {
        let layers = layers.iter().map(|name| self.layer(LayerKind::Distribution, name, days)).collect();
        let python = Python {
            version: "3.11.7".to_owned(),
            soabi: "cpython-311".to_owned(),
            platform: "linux-x86_64".to_owned(),
            least_glibc: None,
        };
        let manifest = Manifest { format: 1, requires: Vec::new(), python, layers, entry_points: Vec::new() };
        let id = publish_manifest(&self.store, &manifest, false).expect("publishes");
        self.age(&Key::environment(&id), days);
        id
    }

    /// A launcher whose executable is its own.
    fn launcher(&self, environment: Digest, overlay: &str, days: u32) -> (Launcher, Digest) {
        let interpreter = Interpreter {
            path: "/usr/bin/python3".to_owned(),
            version: "3.11.7".to_owned(),
            soabi: "cpython-311".to_owned(),
            shipped: false,
        };
        let job = Job {
            name: "n".to_owned(),
            overlays: vec![self.layer(LayerKind::Overlay, overlay, days)],
            ..Job::new(environment, self.store.uri().to_string(), interpreter)
        };
        let manifest = self.store.read(&Key::environment(&environment), MAX_JSON).expect("its manifest");
        let manifest = Manifest::parse(&manifest).expect("parses");
        let launcher = Launcher::new(format!("\x7fELF {overlay}").into_bytes(), job, &manifest);
        let (digest, _) = publish_launcher(&self.store, &launcher, false).expect("publishes");
        self.age(&Key::launcher(&digest), days);
        self.age(&boot_key(&launcher), days);
        (launcher, digest)
    }

    fn name(&self, name: &str, environment: Digest, launcher: Option<Digest>) {
        publish_name(&self.store, name, &self.record(environment, launcher), None).expect("publishes");
        self.age(&Key::name(name, "json").expect("a name"), 1000);
    }

    fn record(&self, environment: Digest, launcher: Option<Digest>) -> NameRecord {
        NameRecord {
            format: 1,
            environment,
            launcher,
            package_installed: Vec::new(),
            platform: "linux-x86_64".to_owned(),
            python_version: "3.11.7".to_owned(),
        }
    }

    fn has(&self, key: &Key) -> bool {
        self.store.stat(key).expect("looks").is_some()
    }

    fn files(&self) -> usize {
        fn count(path: &Path) -> usize {
            let entries = std::fs::read_dir(path).expect("a directory").flatten();
            entries.map(|entry| if entry.path().is_dir() { count(&entry.path()) } else { 1 }).sum()
        }
        count(self.directory.path())
    }
}

fn layer_key(name: &str) -> Key {
    Key::layer(&Digest::of(name.as_bytes()))
}

fn boot_key(launcher: &Launcher) -> Key {
    Key::boot(launcher.boot_digest())
}

fn overlay_key(name: &str) -> Key {
    Key::overlay(&Digest::of(name.as_bytes()))
}

#[test]
fn prune_keeps_named_and_young_objects_and_removes_the_rest() {
    let shelf = Shelf::new();
    let old = shelf.environment(&["shared", "only old"], 100);
    let named = shelf.environment(&["shared", "only named"], 100);
    let of_launcher = shelf.environment(&["of launcher"], 100);
    let young = shelf.environment(&["young"], 3);
    // Young itself, although what it names is old.
    let resubmitted = shelf.environment(&["resubmitted"], 100);
    shelf.age(&Key::environment(&resubmitted), 1);
    let (of_name, kept) = shelf.launcher(of_launcher, "kept overlay", 100);
    let (of_nobody, gone) = shelf.launcher(old, "gone overlay", 100);
    let (in_use, used) = shelf.launcher(young, "used overlay", 100);
    publish_launcher(&shelf.store, &in_use, false).expect("notes that it is used");
    shelf.name("mine", named, None);
    shelf.name("other", young, Some(kept));
    let before = shelf.files();

    let shown = prune(&shelf.store, 30 * DAY, false).expect("looks");
    assert_eq!(shelf.files(), before, "a dry run changes nothing");
    let pruned = prune(&shelf.store, 30 * DAY, true).expect("prunes");
    let keys = |pruned: &Pruned| pruned.removed.iter().map(|l| l.key.clone()).collect::<Vec<_>>();
    assert_eq!(keys(&shown), keys(&pruned), "what was shown is what is done");
    assert_eq!(shelf.files(), before - pruned.removed.len());
    assert_eq!(shelf.files(), pruned.kept + 2, "names are not counted");

    for (key, there) in [
        (Key::environment(&old), false),
        (Key::environment(&named), true),
        (Key::environment(&of_launcher), true),
        (Key::environment(&young), true),
        (Key::environment(&resubmitted), true),
        (Key::launcher(&kept), true),
        (Key::launcher(&gone), false),
        (Key::launcher(&used), true),
        (Key::launcher(&used).in_use(), true),
        (boot_key(&of_name), true),
        (boot_key(&of_nobody), false),
        (boot_key(&in_use), true),
        (boot_key(&in_use).in_use(), true),
        (layer_key("shared"), true),
        (layer_key("only old"), false),
        (layer_key("only named"), true),
        (layer_key("of launcher"), true),
        (layer_key("young"), true),
        (layer_key("resubmitted"), true),
        (Key::content(&Digest::of(b"content of only old")), false),
        (Key::content(&Digest::of(b"content of shared")), true),
        (overlay_key("kept overlay"), true),
        (overlay_key("used overlay"), true),
        (overlay_key("gone overlay"), false),
    ] {
        assert_eq!(shelf.has(&key), there, "{key}");
    }
    assert_eq!(prune(&shelf.store, 30 * DAY, true).expect("again").removed, []);
}

#[test]
fn prune_removes_nothing_while_a_kept_document_cannot_be_read() {
    for (name, text, needle) in [("newer", &br#"{"format":99}"#[..], "upgrade"), ("damaged", b"{", "damaged")] {
        let shelf = Shelf::new();
        shelf.environment(&["old"], 100);
        let bad = Digest::of(name.as_bytes());
        shelf.store.put(&Key::environment(&bad), Source::Bytes(text), Put::Replace).expect("writes");
        shelf.name(name, bad, None);
        let error = prune(&shelf.store, 30 * DAY, true).expect_err(name);
        let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        assert!(error.to_string().contains(&bad.to_hex()) && source.contains(needle), "{error}: {source}");
        assert!(shelf.has(&layer_key("old")), "layers are taken only when everything that stays was read");
    }
}

#[test]
fn launcher_that_is_published_after_the_look_stays_as_old_as_it_is() {
    let shelf = Shelf::new();
    let environment = shelf.environment(&["layer"], 100);
    let (launcher, digest) = shelf.launcher(environment, "overlay", 100);
    let before = SystemTime::now() - 30 * DAY;
    let stock = Stock::look(&shelf.store).expect("looks");
    let keys = [Key::launcher(&digest), boot_key(&launcher)];
    let times = || keys.each_ref().map(|key| shelf.store.stat(key).expect("looks").map(|stat| stat.modified));
    let seen = times();
    let (_, written) = publish_launcher(&shelf.store, &launcher, false).expect("publishes");
    assert_eq!((written, times()), (Written::Kept, seen), "YARN compares the times of files");
    let pruning = Pruning { store: &shelf.store, grace: 30 * DAY, delete: true };
    for listed in [&stock.launchers, &stock.content] {
        pruning.remove(listed, before).expect("removes the rest");
    }
    assert!(keys.iter().all(|key| shelf.has(key) && shelf.has(&key.in_use())));
    // The other way round: what was taken is sent again.
    for key in &keys {
        shelf.store.delete(key).expect("deletes");
    }
    let (_, written) = publish_launcher(&shelf.store, &launcher, false).expect("publishes");
    assert!(written != Written::Kept && keys.iter().all(|key| shelf.has(key)));
}

#[test]
fn launcher_is_repaired() {
    let shelf = Shelf::new();
    let environment = shelf.environment(&["layer"], 1);
    let (launcher, digest) = shelf.launcher(environment, "overlay", 1);
    for key in [Key::launcher(&digest), boot_key(&launcher)] {
        let size = shelf.store.stat(&key).expect("looks").expect("it is there").size;
        shelf.store.put(&key, Source::Bytes(&vec![b' '; size as usize]), Put::Replace).expect("damages");
        for (repair, expected) in [(false, Written::Kept), (true, Written::Sent(size)), (true, Written::Kept)] {
            let (_, written) = publish_launcher(&shelf.store, &launcher, repair).expect("publishes");
            assert_eq!(written, expected, "{key}");
        }
    }
}

#[test]
fn name_that_goes_back_starts_what_it_says() {
    let shelf = Shelf::new();
    let name = |environment: Digest, launcher: Option<&[u8]>| {
        let record = shelf.record(environment, None);
        publish_name(&shelf.store, "mine", &record, launcher).expect("publishes");
    };
    let [one, two] = ["one", "two"].map(|layer| shelf.environment(&[layer], 1));
    let [of_one, of_two] = [one, two].map(|environment| shelf.launcher(environment, "overlay", 1).0.named());
    assert_eq!(of_one.len(), of_two.len());
    name(one, Some(&of_one));
    // As `upload --package`, which lays nothing under the name.
    name(two, None);
    name(two, Some(&of_two));
    let key = Key::name("mine", "").expect("a name");
    assert_eq!(shelf.store.read(&key, 1 << 20).expect("reads"), of_two);
}

#[test]
fn layer_that_is_refreshed_after_the_look_stays() {
    let shelf = Shelf::new();
    shelf.layer(LayerKind::Distribution, "old", 100);
    let key = layer_key("old");
    let before = SystemTime::now() - 30 * DAY;
    let listed = Stock::look(&shelf.store).expect("looks").content;
    assert!(listed.iter().any(|listed| listed.key == key && listed.stat.modified < before));
    shelf.store.refresh(&key).expect("a publisher relies on it");
    let pruning = Pruning { store: &shelf.store, grace: 30 * DAY, delete: true };
    let removed = pruning.remove(&listed, before).expect("removes the rest");
    assert!(shelf.has(&key) && removed.iter().all(|listed| listed.key != key));
}
