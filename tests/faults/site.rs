//! A client: a small virtual environment, a directory store, and `cluster-pack` on them, as an unprivileged user.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cpack_format::Digest;
use cpack_format::manifest::Manifest;
use cpack_test::small_world::{as_nobody, entries, noise, python, succeed};

/// A client and its store, removed with everything in it.
#[derive(Debug)]
pub(crate) struct Site {
    directory: tempfile::TempDir,
}

impl Site {
    pub(crate) fn new() -> Self {
        Self::with(&[("alpha", 300), ("beta", 3000), ("large", 900_000)])
    }

    /// A client whose environment has these distributions, with a data file of so many bytes each.
    pub(crate) fn with(distributions: &[(&str, usize)]) -> Self {
        let directory = tempfile::Builder::new().prefix("cpack-site-").tempdir().expect("a directory");
        let site = Self { directory };
        cpack_test::small_world::own(site.path(""));
        for name in ["home", "tmp"] {
            fs::create_dir(site.path(name)).expect("creates");
            cpack_test::small_world::own(site.path(name));
        }
        let venv = site.path("venv");
        succeed(site.command(&python().path).args(["-m", "venv", "--without-pip"]).arg(&venv));
        site.install_pex();
        for (name, size) in distributions {
            site.install(name, "1.0", *size);
        }
        site
    }

    /// Puts a `pex` on the path, which packing a PEX takes the runtime from.
    fn install_pex(&self) {
        let wheel = cpack_test::cached("pex", |place| {
            let mut pip = Command::new("python3");
            pip.args(["-m", "pip", "install", "-q", "--disable-pip-version-check", "--target"]).arg(place).arg("pex");
            cpack_test::run(&mut pip, "python3 with pip");
        });
        cpack_test::run(Command::new("cp").arg("-r").arg(&wheel).arg(self.path("pex")), "coreutils");
        fs::create_dir(self.path("bin")).expect("creates");
        let (path, python) = (self.path("pex").display().to_string(), python().path.display());
        let script = format!("#!/bin/sh\nPYTHONPATH={path} exec {python} -m pex \"$@\"\n");
        cpack_test::small_world::write_executable(&self.path("bin/pex"), script.as_bytes());
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Puts a distribution into the environment as an installer leaves it, with a data file of `size` bytes.
    pub(crate) fn install(&self, name: &str, version: &str, size: usize) {
        let lib = self.path("venv/lib").join(format!("python{}", python().minor)).join("site-packages");
        let info = lib.join(format!("{name}-{version}.dist-info"));
        for old in entries(&lib).iter().filter(|p| p.to_string_lossy().contains(&format!("/{name}-"))) {
            fs::remove_dir_all(old).expect("removes");
        }
        fs::create_dir_all(&info).expect("creates");
        fs::write(lib.join(format!("{name}.py")), format!("NAME = {name:?}\nVERSION = {version:?}\n")).expect("writes");
        fs::write(lib.join(format!("{name}.bin")), noise(size, size as u64)).expect("writes");
        let metadata = format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n");
        fs::write(info.join("METADATA"), metadata).expect("writes");
        let files = [".py", ".bin"].map(|end| format!("{name}{end},,\n")).concat();
        let records = ["METADATA", "RECORD"].map(|file| format!("{name}-{version}.dist-info/{file},,\n")).concat();
        fs::write(info.join("RECORD"), files + &records).expect("writes");
    }

    /// A program with nothing of this process's environment.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", self.path("bin").display()))
            .env("HOME", self.path("home"))
            .env("TMPDIR", self.path("tmp"))
            .env("CPACK_BOOT", crate::boot())
            .env("CPACK_CACHE_DIR", self.path("home/node"))
            .env("CPACK_CACHE_RESERVE", "0")
            .current_dir(self.path("home"))
            .stdin(std::process::Stdio::null());
        as_nobody(&mut command);
        command
    }

    /// `cluster-pack` with these arguments.
    pub(crate) fn pack(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(crate::cluster_pack());
        command
            .arg("-q")
            .arg("--store")
            .arg(self.path("home/store"))
            .args(arguments)
            .arg("--venv")
            .arg(self.path("venv"));
        command
    }

    /// The node cache of what is started here.
    pub(crate) fn cache(&self) -> PathBuf {
        self.path("home/node").join(cpack_test::small_world::cache_name())
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path("home/store")
    }

    /// Every object of the store is what its name says, and every manifest names layers that are whole.
    pub(crate) fn check_store(&self) -> usize {
        let store = self.store();
        let mut objects = 0;
        let mut named = |path: &Path| {
            let name = path.file_stem().and_then(|n| n.to_str()).expect("a name").to_owned();
            assert_eq!(Digest::of(&fs::read(path).expect("reads")).to_hex(), name, "{} is torn", path.display());
            objects += 1;
        };
        for directory in ["layers", "overlays"] {
            entries(&store.join(directory)).iter().flat_map(|shard| entries(shard)).for_each(|p| named(&p));
        }
        for directory in ["launchers", "boot"] {
            entries(&store.join(directory)).iter().for_each(|path| named(path));
        }
        for path in entries(&store.join("environments")) {
            named(&path);
            let manifest = Manifest::parse(&fs::read(&path).expect("reads")).expect("a manifest");
            for layer in &manifest.layers {
                let key = cpack_store::Key::layer(&layer.archive.digest);
                let size = fs::metadata(store.join(key.as_str())).map(|m| m.len());
                assert_eq!(size.ok(), Some(layer.archive.size), "{} misses layer {}", path.display(), layer.name);
            }
        }
        for path in entries(&store.join("contents")).iter().chain(&entries(&store.join("names"))) {
            if path.extension().is_some_and(|e| e == "json") {
                let text = fs::read(path).expect("reads");
                assert!(serde_json::from_slice::<serde_json::Value>(&text).is_ok(), "{} is torn", path.display());
            }
        }
        objects
    }
}
