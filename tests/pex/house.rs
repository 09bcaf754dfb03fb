//! The wheels that the matrix is made of: small projects, written here, so that nothing has to be built or fetched.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use zip::write::SimpleFileOptions;

/// A project of one wheel.
struct Wheel<'a> {
    name: &'a str,
    tag: &'a str,
    requires: &'a [&'a str],
    extras: &'a [&'a str],
    entry_points: &'a str,
    files: &'a [(&'a str, &'a str)],
}

impl Default for Wheel<'_> {
    fn default() -> Self {
        Self { name: "", tag: "py3-none-any", requires: &[], extras: &[], entry_points: "", files: &[] }
    }
}

/// What every entry of the matrix prints: all that a program can see of how it was started.
const REPORT: &str = include_str!("report.py");

const MAIN: &str = "\
import sys
from app.report import report
class Tool:
    @staticmethod
    def run():
        report('method')
        return 7
def run():
    report('function')
    if '--fail' in sys.argv:
        return 'failed on purpose'
if __name__ == '__main__':
    report('module')
    sys.exit(5 if '--exit' in sys.argv else 0)
";

const SCRIPT: &str = "#!python\nimport sys\nfrom app.report import report\nreport('script')\nsys.exit(3)\n";
const SHELL: &str = "#!/bin/sh\necho shell \"$@\"\nexit 4\n";
const EXTEND: &str = "__path__ = __import__('pkgutil').extend_path(__path__, __name__)\n";

/// Writes all wheels into `house`. `python` is the tag of the interpreter of the tests, `cp311`.
pub(crate) fn write(house: &Path, python: &str) {
    let entry_points = "[console_scripts]\napp-tool = app.main:run\napp-method = app.main:Tool.run [more]\n\
                        [app.plugins]\none = app.main:run\n";
    wheel(
        house,
        &Wheel {
            name: "app",
            requires: &[
                "Lib_Rary>=1",
                "extra-lib; extra == 'more'",
                "never; python_version < '3'",
                "here; sys_platform == 'linux'",
            ],
            extras: &["more"],
            entry_points,
            files: &[
                ("app/__init__.py", "VERSION = '1.0'\n"),
                ("app/main.py", MAIN),
                ("app/report.py", REPORT),
                ("app/data/hello.txt", "hello\n"),
                ("app-1.0.data/scripts/app-script", SCRIPT),
                ("app-1.0.data/scripts/app-shell", SHELL),
                ("app-1.0.data/data/share/app/readme.txt", "read me\n"),
            ],
            ..Wheel::default()
        },
    );
    let pth = [("lib_rary.py", "VALUE = 'lib'\n"), ("lib_rary.pth", "import sys; sys.lib_rary_pth = True\n")];
    wheel(house, &Wheel { name: "lib_rary", files: &pth, ..Wheel::default() });
    wheel(house, &Wheel { name: "here", files: &[("here.py", "VALUE = 'here'\n")], ..Wheel::default() });
    wheel(house, &Wheel { name: "extra_lib", files: &[("extra_lib.py", "VALUE = 'extra'\n")], ..Wheel::default() });
    for (name, module) in [("ns_one", "one"), ("ns_two", "two")] {
        let (plain, styled) = (format!("nsp/{module}.py"), format!("pk/{module}.py"));
        let files = [(&*plain, "VALUE = 1\n"), (&*styled, "VALUE = 2\n"), ("pk/__init__.py", EXTEND)];
        wheel(house, &Wheel { name, files: &files, ..Wheel::default() });
    }
    for name in ["clash_a", "clash_b"] {
        let own = format!("{name}.py");
        let value = format!("VALUE = '{name}'\n");
        let files =
            [("clash.py", &*value), ("clashing/__init__.py", &*value), (&*own, &*value), ("usercode.py", &*value)];
        wheel(house, &Wheel { name, files: &files, ..Wheel::default() });
    }
    let files = [
        ("split.py", "VALUE = 'root'\n"),
        ("split-1.0.data/purelib/split_pure.py", "VALUE = 'pure'\n"),
        ("split-1.0.data/platlib/split_plat/__init__.py", "VALUE = 'plat'\n"),
        ("split-1.0.data/headers/split.h", "#define SPLIT\n"),
        ("split-1.0.data/data/etc/split.conf", "on\n"),
    ];
    wheel(house, &Wheel { name: "split", files: &files, ..Wheel::default() });
    tagged(house, python);
}

/// One project with wheels for several platforms and Pythons.
fn tagged(house: &Path, python: &str) {
    let machine = std::env::consts::ARCH;
    let exact = format!("{python}-{python}-manylinux_2_17_{machine}");
    let stable = format!("cp38-abi3-manylinux_2_5_{machine}");
    for tag in ["py3-none-any", &exact, &stable, "cp38-cp38-macosx_11_0_arm64"] {
        let value = format!("VALUE = '{tag}'\n");
        wheel(house, &Wheel { name: "tagged", tag, files: &[("tagged.py", &value)], ..Wheel::default() });
    }
}

fn wheel(house: &Path, wheel: &Wheel<'_>) {
    let Wheel { name, tag, .. } = wheel;
    let info = format!("{name}-1.0.dist-info");
    let mut metadata = format!("Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n");
    metadata.extend(wheel.requires.iter().map(|requirement| format!("Requires-Dist: {requirement}\n")));
    metadata.extend(wheel.extras.iter().map(|extra| format!("Provides-Extra: {extra}\n")));
    let pure = tag.ends_with("none-any");
    let about = format!("Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: {pure}\nTag: {tag}\n");
    let mut files: Vec<(String, &str)> = wheel.files.iter().map(|(path, text)| ((*path).to_owned(), *text)).collect();
    files.push((format!("{info}/METADATA"), &metadata));
    files.push((format!("{info}/WHEEL"), &about));
    if !wheel.entry_points.is_empty() {
        files.push((format!("{info}/entry_points.txt"), wheel.entry_points));
    }
    let mut record: String = files.iter().map(|(path, _)| format!("{path},,\n")).collect();
    record += &format!("{info}/RECORD,,\n");
    files.push((format!("{info}/RECORD"), &record));
    fs::create_dir_all(house).expect("creates");
    let file = File::create(house.join(format!("{name}-1.0-{tag}.whl"))).expect("creates");
    let mut zip = zip::ZipWriter::new(file);
    for (path, text) in files {
        let mode = if path.contains("/scripts/") { 0o755 } else { 0o644 };
        zip.start_file(path, SimpleFileOptions::default().unix_permissions(mode)).expect("starts");
        zip.write_all(text.as_bytes()).expect("writes");
    }
    zip.finish().expect("finishes");
}
