use std::fs;
use std::io::{Cursor, Write as _};
use std::path::PathBuf;
use std::sync::OnceLock;

use cpack_discover::record;
use cpack_discover::selection;
use cpack_test::programs::interpreters;
use tempfile::TempDir;
use zip::write::SimpleFileOptions;

use super::prepared::Prepared;
use super::tools::on_path;
use super::*;

const GENERIC: &str = "py3-none-any";

/// A package index in a directory, with a cache for environments beside it.
struct Index {
    directory: TempDir,
}

impl Index {
    fn new() -> Self {
        let index = Self { directory: tempfile::tempdir().expect("a directory") };
        index.release("cpt-lib", "1.0", GENERIC, &[]);
        index.release("cpt-lib", "2.0", GENERIC, &[]);
        index.release("cpt-app", "1.0", GENERIC, &["cpt-lib>=1"]);
        index
    }

    /// Publishes a wheel with a module, a script and a data file.
    fn release(&self, name: &str, version: &str, tag: &str, requires: &[&str]) {
        let module = name.replace('-', "_");
        let info = format!("{module}-{version}.dist-info");
        let requires: String = requires.iter().map(|r| format!("Requires-Dist: {r}\n")).collect();
        let files = [
            (format!("{module}/__init__.py"), format!("VERSION = '{version}'\n")),
            (format!("{module}-{version}.data/data/share/{name}/data.txt"), "data".to_owned()),
            (
                format!("{info}/METADATA"),
                format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}\n"),
            ),
            (
                format!("{info}/WHEEL"),
                format!("Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: false\nTag: {tag}\n"),
            ),
            (format!("{info}/entry_points.txt"), format!("[console_scripts]\n{name} = {module}:main\n")),
        ];
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let mut rows = format!("{info}/RECORD,,\n");
        for (path, content) in &files {
            zip.start_file(path, SimpleFileOptions::default()).expect("starts");
            zip.write_all(content.as_bytes()).expect("writes");
            rows += &format!("{path},{},{}\n", record::hash(content.as_bytes()), content.len());
        }
        zip.start_file(format!("{info}/RECORD"), SimpleFileOptions::default()).expect("starts");
        zip.write_all(rows.as_bytes()).expect("writes");
        let wheel = format!("{module}-{version}-{tag}.whl");
        let folder = self.directory.path().join("simple").join(name);
        fs::create_dir_all(&folder).expect("makes");
        fs::write(folder.join(&wheel), zip.finish().expect("ends").into_inner()).expect("writes");
        let wheels =
            fs::read_dir(&folder).expect("reads").flatten().map(|e| e.file_name().into_string().expect("text"));
        let links = wheels.filter(|w| w.ends_with(".whl")).map(|w| format!("<a href=\"{w}\">{w}</a>\n"));
        let page: String = links.collect();
        fs::write(folder.join("index.html"), format!("<!DOCTYPE html><html><body>{page}</body></html>"))
            .expect("writes");
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("makes");
        fs::write(&path, text).expect("writes");
        path
    }

    fn cache(&self) -> PathBuf {
        self.directory.path().join("cache")
    }

    fn request(&self, files: &[PathBuf], requirements: &[&str]) -> Request {
        let url = format!("file://{}", self.directory.path().join("simple").display());
        let options = Options { index_url: Some(url), ..Options::default() };
        Request { files: files.to_vec(), requirements: requirements.iter().map(|r| (*r).to_owned()).collect(), options }
    }
}

/// An interpreter whose pip reports what it would install. It is looked for once.
fn with_pip() -> PathBuf {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let reports = |python: &PathBuf| {
        let mut command = run::command(python);
        command.args(["-I", "-m", "pip", "install", "--help"]);
        run::run(command, "pip", &|_| {}).is_ok_and(|said| said.stdout.contains("--report"))
    };
    let found = FOUND.get_or_init(|| interpreters().into_iter().find(reports));
    found.clone().expect("these tests need a CPython with a pip that has `install --report`")
}

/// This machine, once with uv where it is there, and once without.
fn machines(index: &Index) -> Vec<(&'static str, Machine)> {
    let interpreter = with_pip();
    let folder = index.directory.path().join("bin");
    fs::create_dir_all(&folder).expect("makes");
    std::os::unix::fs::symlink(&interpreter, folder.join("python3")).expect("links");
    let mut machine = Machine { path: Some(folder.clone().into()), cache_dir: index.cache(), ..Machine::default() };
    let mut machines = vec![("pip", machine.clone())];
    match on_path(std::env::var_os("PATH").as_deref(), "uv") {
        None => println!("this machine has no uv: only pip is tested"),
        Some(uv) => {
            let with_uv = index.directory.path().join("uv");
            fs::create_dir_all(&with_uv).expect("makes");
            std::os::unix::fs::symlink(uv, with_uv.join("uv")).expect("links");
            machine.path = Some(std::env::join_paths([with_uv, folder]).expect("a path"));
            machines.push(("uv", machine));
        }
    }
    machines
}

/// `name==version` of everything in an environment, and that it is sound.
fn installed(prepared: &Prepared, machine: &Machine) -> Vec<String> {
    let environment = prepared.discover(&machine.cache_dir, false).expect("an environment");
    assert_eq!(environment.warnings, []);
    assert_eq!(environment.unowned, []);
    for distribution in &environment.distributions {
        let has = |path: &str| distribution.files.iter().any(|f| f.path.to_string() == path);
        assert!(has(&format!("bin/{}", distribution.name)), "{:?}", distribution.files);
        assert!(has(&format!("share/{}/data.txt", distribution.name)), "{:?}", distribution.files);
    }
    environment.distributions.iter().map(|d| format!("{}=={}", d.name, d.version)).collect()
}

#[test]
fn environment_is_reused_while_its_resolution_is_unchanged() {
    let index = Index::new();
    for (tool, machine) in machines(&index) {
        index.file("base.txt", "cpt-app\n");
        let file = index.file("requirements.txt", "# all of it\n-r base.txt\n");
        let request = index.request(std::slice::from_ref(&file), &[]);
        let first = prepare(&request, &machine, &|_| {}).expect(tool);
        assert!(!first.reused);
        assert_eq!(installed(&first, &machine), ["cpt-app==1.0", "cpt-lib==2.0"], "{tool}");
        let again = prepare(&request, &machine, &|_| {}).expect(tool);
        assert_eq!(again, Prepared { reused: true, ..first.clone() }, "{tool}");
        // The same projects from another file are the same resolution.
        let other = index.file("other.txt", "cpt-lib==2.0\ncpt-app==1.0\n");
        assert_eq!(
            prepare(&index.request(&[other], &[]), &machine, &|_| {}).expect(tool).prefix,
            first.prefix,
            "{tool}"
        );
        // An included file changes.
        index.file("base.txt", "cpt-app\ncpt-lib<2\n");
        let changed = prepare(&request, &machine, &|_| {}).expect(tool);
        assert!(!changed.reused && changed.prefix != first.prefix);
        assert_eq!(installed(&changed, &machine), ["cpt-app==1.0", "cpt-lib==1.0"], "{tool}");
        let left: Vec<_> = fs::read_dir(index.cache().join("environments")).expect("reads").flatten().collect();
        assert!(left.iter().all(|e| !e.file_name().to_string_lossy().starts_with("scratch-")), "{left:?}");
    }
}

#[test]
fn digests_in_a_file_are_compared_whatever_was_installed_before() {
    let index = Index::new();
    for (tool, machine) in machines(&index) {
        let plain = index.file("plain.txt", "cpt-lib==2.0\n");
        let first = prepare(&index.request(&[plain], &[]), &machine, &|_| {}).expect(tool);
        assert_eq!(installed(&first, &machine), ["cpt-lib==2.0"], "{tool}");
        let wrong = format!("cpt-lib==2.0 \\\n    --hash=sha256:{}\n", "0".repeat(64));
        let wrong = index.file("wrong.txt", &wrong);
        let refused = prepare(&index.request(&[wrong], &[]), &machine, &|_| {});
        assert!(refused.is_err_and(|e| e.to_string().to_lowercase().contains("hash")), "{tool}");
    }
}

#[test]
fn requirements_add_to_files_and_uv_lets_them_replace() {
    let index = Index::new();
    let file = index.file("requirements.txt", "cpt-lib==2.0\n");
    for (tool, machine) in machines(&index) {
        let added = prepare(&index.request(std::slice::from_ref(&file), &["cpt-app"]), &machine, &|_| {}).expect(tool);
        assert_eq!(installed(&added, &machine), ["cpt-app==1.0", "cpt-lib==2.0"], "{tool}");
        let replaced = prepare(&index.request(std::slice::from_ref(&file), &["cpt-lib==1.0"]), &machine, &|_| {});
        match tool {
            "uv" => assert_eq!(installed(&replaced.expect("replaces"), &machine), ["cpt-lib==1.0"]),
            _ => assert!(replaced.is_err_and(|e| e.to_string().contains("cpt-lib==1.0"))),
        }
    }
}

#[test]
fn another_platform_gets_its_own_wheels() {
    let index = Index::new();
    let here = std::env::consts::ARCH;
    let there = if here == "aarch64" { "x86_64" } else { "aarch64" };
    for arch in [here, there] {
        index.release("cpt-native", "1.0", &format!("py3-none-manylinux_2_17_{arch}"), &["cpt-app"]);
    }
    for (tool, machine) in machines(&index) {
        let mut request = index.request(&[], &["cpt-native"]);
        let native = prepare(&request, &machine, &|_| {}).expect(tool);
        assert_eq!(native.platform, None);
        request.options.python_platform = Some(format!("{there}-manylinux_2_28"));
        let foreign = prepare(&request, &machine, &|_| {}).expect(tool);
        assert_ne!(native.prefix, foreign.prefix, "{tool}");
        assert_eq!(installed(&foreign, &machine), ["cpt-app==1.0", "cpt-lib==2.0", "cpt-native==1.0"], "{tool}");
        let environment = foreign.discover(&machine.cache_dir, false).expect("an environment");
        let tags = &environment.distribution("cpt-native").expect("there").tags;
        assert_eq!(tags, &[format!("py3-none-manylinux_2_17_{there}")], "{tool}");
        assert!(environment.python.soabi.ends_with(&format!("{there}-linux-gnu")), "{:?}", environment.python.soabi);
        assert_eq!(environment.python.glibc.as_deref(), Some("2.28"));
        request.options.python_platform = Some("macos".into());
        assert!(matches!(prepare(&request, &machine, &|_| {}), Err(RequirementsError::Platform(_))));
        // What was built for this machine does not pass for the other.
        let wrong = Prepared { platform: foreign.platform, ..native };
        let error = wrong.discover(&machine.cache_dir, false).expect_err("refused").to_string();
        assert!(error.contains("cpt-native 1.0 has no wheel for"), "{error}");
    }
}

#[test]
fn what_is_added_to_an_environment_is_what_it_lacks() {
    let index = Index::new();
    for (tool, machine) in machines(&index) {
        let base = prepare(&index.request(&[], &["cpt-lib==1.0"]), &machine, &|_| {}).expect(tool);
        let mut environment = base.discover(&machine.cache_dir, false).expect("an environment");
        let nothing = additions(&environment, &index.request(&[], &["cpt-lib"]), &machine, &|_| {}).expect(tool);
        assert_eq!(nothing, None, "{tool}");
        let request = index.request(&[], &["cpt-app"]);
        let more = additions(&environment, &request, &machine, &|_| {}).expect(tool).expect("something");
        assert_eq!(installed(&more, &machine), ["cpt-app==1.0"], "{tool}");
        let again = additions(&environment, &request, &machine, &|_| {}).expect(tool).expect("something");
        assert!(again.reused && again.prefix == more.prefix, "{tool}");
        selection::merge(&mut environment, more.discover(&machine.cache_dir, false).expect("an environment"));
        let names: Vec<_> = environment.distributions.iter().map(|d| format!("{}=={}", d.name, d.version)).collect();
        assert_eq!(names, ["cpt-app==1.0", "cpt-lib==1.0"], "{tool}");
        let files = environment.distributions.iter().flat_map(|d| &d.files);
        assert!(files.clone().all(|file| environment.source(file).is_file()), "{tool}");
        // The environment itself is as it was.
        assert_eq!(installed(&base, &machine), ["cpt-lib==1.0"], "{tool}");
    }
}

/// A build backend that needs nothing else.
const BACKEND: &str = "
import os, zipfile
def build_editable(folder, config_settings=None, metadata_directory=None):
    version = open('version.txt').read().strip()
    info = 'cpt_local-%s.dist-info/' % version
    name = 'cpt_local-%s-py3-none-any.whl' % version
    with zipfile.ZipFile(os.path.join(folder, name), 'w') as wheel:
        wheel.writestr('cpt_local.pth', os.getcwd())
        wheel.writestr(info + 'METADATA', 'Metadata-Version: 2.1\\nName: cpt-local\\nVersion: %s\\n' % version)
        wheel.writestr(info + 'WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
        wheel.writestr(info + 'RECORD', ''.join(n + ',,\\n' for n in wheel.namelist()) + info + 'RECORD,,\\n')
    return name
def get_requires_for_build_editable(config_settings=None):
    return []
def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = 'cpt_local-1.0-py3-none-any.whl'
    info = 'cpt_local-1.0.dist-info/'
    with zipfile.ZipFile(os.path.join(folder, name), 'w') as wheel:
        wheel.write('cpt_local.py')
        wheel.writestr(info + 'METADATA', 'Metadata-Version: 2.1\\nName: cpt-local\\nVersion: 1.0\\nRequires-Dist: cpt-lib\\n')
        wheel.writestr(info + 'WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
        wheel.writestr(info + 'RECORD', ''.join(n + ',,\\n' for n in wheel.namelist()) + info + 'RECORD,,\\n')
    return name
def get_requires_for_build_wheel(config_settings=None):
    return []
";

/// A project of [`BACKEND`] in the index's directory.
fn local_project(index: &Index, module: &str) -> PathBuf {
    index.file(
        "local/pyproject.toml",
        "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n",
    );
    index.file("local/backend.py", BACKEND);
    index.file("local/cpt_local.py", module);
    index.directory.path().join("local")
}

/// The source of `cpt_local` in an environment.
fn local_module(prepared: &Prepared, machine: &Machine) -> String {
    let environment = prepared.discover(&machine.cache_dir, false).expect("an environment");
    let path = environment.prefix.join(&environment.site_packages).join("cpt_local.py");
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn requirements_are_paths_of_projects_and_archives_without_a_name() {
    let index = Index::new();
    for (tool, machine) in machines(&index) {
        let project = local_project(&index, "first");
        let file = index.file("requirements.txt", &format!("{}\n", project.display()));
        let request = index.request(std::slice::from_ref(&file), &[]);
        let first = prepare(&request, &machine, &|_| {}).expect(tool);
        assert_eq!(local_module(&first, &machine), "first", "{tool}");
        let names = first.discover(&machine.cache_dir, false).expect("an environment").distributions;
        assert_eq!(names.iter().map(|d| d.name.as_str()).collect::<Vec<_>>(), ["cpt-lib", "cpt-local"], "{tool}");
        // Sources that changed without `pyproject.toml`.
        local_project(&index, "second");
        let again = prepare(&request, &machine, &|_| {}).expect(tool);
        assert_eq!((again.prefix, local_module(&first, &machine).as_str()), (first.prefix, "second"), "{tool}");

        let wheel = index.directory.path().join("cpt_local-1.0-py3-none-any.whl");
        let build = |text: &str| {
            let project = local_project(&index, text);
            let mut command = run::command(with_pip());
            command.args(["-c", "import backend; backend.build_wheel('..')"]).current_dir(project);
            run::run(command, "build", &|_| {}).expect("builds");
        };
        build("third");
        index.file("requirements.txt", &format!("{}\n", wheel.display()));
        let archive = prepare(&request, &machine, &|_| {}).expect(tool);
        assert_eq!(local_module(&archive, &machine), "third", "{tool}");
        build("fourth and longer");
        let rebuilt = prepare(&request, &machine, &|_| {}).expect(tool);
        assert_eq!(local_module(&rebuilt, &machine), "fourth and longer", "{tool}");
    }
}

#[test]
fn additions_are_paths_of_projects_without_a_name() {
    let index = Index::new();
    for (tool, machine) in machines(&index) {
        let base = prepare(&index.request(&[], &["cpt-lib==1.0"]), &machine, &|_| {}).expect(tool);
        let environment = base.discover(&machine.cache_dir, false).expect("an environment");
        for text in ["first", "second"] {
            let project = local_project(&index, text).display().to_string();
            let request = index.request(&[], &[&project]);
            let more = additions(&environment, &request, &machine, &|_| {}).expect(tool).expect("something");
            assert_eq!(local_module(&more, &machine), text, "{tool}");
        }
        let file = index.file("requirements.txt", "cpt-lib==1.0\n");
        let project = local_project(&index, "third").display().to_string();
        let both = prepare(&index.request(&[file], &[&project]), &machine, &|_| {}).expect(tool);
        assert_eq!(local_module(&both, &machine), "third", "{tool}");
    }
}

#[test]
fn local_project_is_looked_at_again() {
    let index = Index::new();
    let local = index.directory.path().join("local");
    index.file(
        "local/pyproject.toml",
        "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n",
    );
    index.file("local/backend.py", BACKEND);
    index.file("local/cpt_local.py", "");
    let file = index.file("requirements.txt", &format!("-e {}\ncpt-lib\n", local.display()));
    for (tool, machine) in machines(&index) {
        index.file("local/version.txt", "1.0");
        let request = index.request(std::slice::from_ref(&file), &[]);
        let first = prepare(&request, &machine, &|_| {}).expect(tool);
        let local = |prepared: &Prepared| {
            let environment = prepared.discover(&machine.cache_dir, false).expect("an environment");
            assert_eq!((environment.warnings.as_slice(), environment.distributions.len()), (&[][..], 1), "{tool}");
            let editables = environment.editables.into_iter();
            editables
                .map(|e| (e.name, e.version, e.files.iter().any(|f| f.path.as_bytes() == b"cpt_local.py")))
                .collect::<Vec<_>>()
        };
        assert_eq!(local(&first), [("cpt-local".to_owned(), "1.0".to_owned(), true)], "{tool}");
        let later = fs::File::options().append(true).open(index.file("local/version.txt", "1.1")).expect("opens");
        later.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(10)).expect("sets");
        index.file(
            "local/pyproject.toml",
            &fs::read_to_string(index.directory.path().join("local/pyproject.toml")).expect("reads"),
        );
        let again = prepare(&request, &machine, &|_| {}).expect(tool);
        assert!(again.reused && again.prefix == first.prefix, "{tool}");
        assert_eq!(local(&again), [("cpt-local".to_owned(), "1.1".to_owned(), true)], "{tool}");
    }
}

#[test]
fn failures_say_what_is_wrong() {
    let index = Index::new();
    let nothing = Machine { cache_dir: index.cache(), ..Machine::default() };
    let error = prepare(&index.request(&[], &["cpt-app"]), &nothing, &|_| {}).expect_err("no tool").to_string();
    assert!(error.contains("install uv"), "{error}");
    for (tool, machine) in machines(&index) {
        let missing = index.request(&[index.directory.path().join("gone.txt")], &[]);
        let error = prepare(&missing, &machine, &|_| {}).expect_err(tool).to_string();
        assert!(error.contains("gone.txt"), "{error}");
        let mut request = index.request(&[], &["cpt-unknown==7"]);
        let link = index.directory.path().join("simple/cpt-lib");
        request.options.find_links = vec![link.display().to_string()];
        let error = prepare(&request, &machine, &|_| {}).expect_err(tool).to_string();
        assert!(error.contains("cpt-unknown") && error.contains("failed"), "{tool}: {error}");
        let environments = fs::read_dir(index.cache().join("environments")).expect("reads").count();
        assert_eq!(environments, 0, "{tool} left something");
    }
    let pip = Machine { path: Some(index.directory.path().join("bin").into()), cache_dir: index.cache(), ..nothing };
    let mut request = index.request(&[], &["cpt-app"]);
    request.options.python_version = Some("3.2".into());
    let error = prepare(&request, &pip, &|_| {}).expect_err("no such Python").to_string();
    assert!(error.contains("there is no Python 3.2"), "{error}");
}
