//! Which files of a tree are copies that may be written to.
//!
//! A linked file is one file for its layer and for all environments of the node. No program may write to it, so its mode is
//! 0444, in a directory of 0555. Copying a file keeps its mode: a program that copies templates from its package
//! (`shutil.copy`, `copytree`, `cp -r`) would get files that it cannot edit, in directories to which it cannot add. For the
//! owner of a file the mode alone decides. So a file can only be writable after it is copied if it is writable in the tree,
//! and then it must not be shared.
//!
//! | what | in a tree | a program that writes there |
//! | --- | --- | --- |
//! | modules, byte-code, native code, `bin/`, `include/`, files above [`LARGEST`] | linked, 0444 | gets an error |
//! | directories of packages | 0555 | gets an error |
//! | other files in packages | copied, 0644 | changes this environment on this node, until `--cpack verify` |
//! | resource directories and all that is in them | copied, 0644 in 0755 | the same |
//!
//! A resource directory is `share`, `etc`, or a directory in a package that is not a package itself, with everything below
//! it: templates, skeletons, assets. Programs copy or run the modules there and do not import them. A resource directory that
//! holds a linked file stays 0555.
//!
//! docs/guarantees.md has the cost.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

/// A file of more bytes is always linked. Templates are smaller; data, jars and models are larger, and copying them would
/// cost each environment their size.
pub const LARGEST: u64 = 1 << 20;

/// What a directory of a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Area {
    /// All its files are linked.
    Code,
    /// A package: files that are not code are copied.
    Package,
    /// All its files are copied.
    Resource,
}

/// Suffixes of files that are imported, compiled or linked against.
const CODE: [&str; 15] =
    ["py", "pyc", "pyi", "pyd", "pyx", "pxd", "pxi", "h", "hpp", "cuh", "c", "cc", "cpp", "cu", "a"];

impl Area {
    /// Whether a file `name` in such a directory is copied, provided that it is at most [`LARGEST`] and no native code.
    pub fn copies(self, name: &OsStr) -> bool {
        match self {
            Self::Code => false,
            Self::Resource => !is_native(name),
            Self::Package => !is_native(name) && !CODE.contains(&suffix(name)),
        }
    }
}

fn suffix(name: &OsStr) -> &str {
    Path::new(name).extension().and_then(OsStr::to_str).unwrap_or_default()
}

/// `x.so`, and `libx.so.1`.
fn is_native(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name.ends_with(b".so") || name.windows(4).any(|part| part == b".so.")
}

/// The packages of an environment: directories with an `__init__`, in whichever layer it is.
#[derive(Debug, Default)]
pub struct Packages(HashSet<PathBuf>);

impl Packages {
    /// Whether `directory` stays writable; `shares` if a file in it is linked.
    pub fn is_open(&self, directory: &Path, shares: bool) -> bool {
        !shares && self.area(directory) == Area::Resource
    }

    /// Notes a directory if the file `name` in it makes it a package.
    pub fn note(&mut self, directory: &Path, name: &OsStr) {
        let name = name.as_bytes();
        if name == b"__init__.py"
            || name == b"__init__.pyc"
            || (name.starts_with(b"__init__.") && name.ends_with(b".so"))
        {
            self.0.insert(directory.into());
        }
    }

    /// What a directory is, by its path in the tree.
    pub fn area(&self, directory: &Path) -> Area {
        let names: Vec<&OsStr> = directory.components().map(Component::as_os_str).collect();
        match names.first().and_then(|name| name.to_str()) {
            Some("share" | "etc") => return Area::Resource,
            Some("lib" | "lib64") => {}
            _ => return Area::Code,
        }
        let is_python = names.get(1).is_some_and(|name| name.as_bytes().starts_with(b"python"));
        let root = match names.get(2) {
            _ if !is_python => return Area::Code,
            Some(name) if *name == "site-packages" => 3,
            _ => 2,
        };
        let mut path: PathBuf = names.iter().take(root).collect();
        let mut area = Area::Code;
        for name in names.iter().skip(root) {
            path.push(name);
            area = match area {
                // Above the first package there are only namespaces and the notes of installers.
                _ if self.0.contains(&path) => Area::Package,
                Area::Code => Area::Code,
                Area::Package if *name == "__pycache__" => return Area::Code,
                Area::Package | Area::Resource => return Area::Resource,
            };
        }
        area
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn area_of_directory_that_is_no_package_inside_of_one_is_resource() {
        let site = "lib/python3.11/site-packages";
        let mut packages = Packages::default();
        for package in ["pkg", "pkg/sub", "space/real", "pkg/templates/project/module"] {
            packages.note(&Path::new(site).join(package), OsStr::new("__init__.py"));
        }
        packages.note(&Path::new(site).join("fast"), OsStr::new("__init__.cpython-311-x86_64-linux-gnu.so"));
        packages.note(&Path::new(site).join("pkg/other"), OsStr::new("main.py"));
        packages.note(Path::new("lib/python3.11/email"), OsStr::new("__init__.py"));
        let of_site = |path: &str| packages.area(&Path::new(site).join(path));
        for (path, area) in [
            ("", Area::Code),
            ("pkg", Area::Package),
            ("fast", Area::Package),
            ("pkg/sub", Area::Package),
            ("pkg/__pycache__", Area::Code),
            ("pkg/other", Area::Resource),
            ("pkg/templates/project/module", Area::Resource),
            ("pkg/templates/__pycache__", Area::Resource),
            ("space", Area::Code),
            ("space/real/data", Area::Resource),
            ("pkg-1.0.dist-info/licenses", Area::Code),
        ] {
            assert_eq!(of_site(path), area, "{path}");
        }
        for (path, area) in [
            ("share/x/y", Area::Resource),
            ("etc", Area::Resource),
            ("bin", Area::Code),
            ("include/x", Area::Code),
            ("lib/x", Area::Code),
            ("lib/python3.11/email/mime", Area::Resource),
            ("", Area::Code),
        ] {
            assert_eq!(packages.area(Path::new(path)), area, "{path}");
        }
    }

    #[test]
    fn area_copies_no_code_of_a_package() {
        let copied = |area: Area, name: &str| area.copies(OsStr::new(name));
        for (name, package, resource) in [
            ("mod.py", false, true),
            ("mod.pyi", false, true),
            ("py.typed", true, true),
            ("default.yaml", true, true),
            ("README", true, true),
            ("x.so", false, false),
            ("libx.so.1", false, false),
            ("script.py.mako", true, true),
        ] {
            assert_eq!((copied(Area::Package, name), copied(Area::Resource, name)), (package, resource), "{name}");
            assert!(!copied(Area::Code, name));
        }
    }
}
