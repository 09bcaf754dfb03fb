//! Discovery of a Python environment, without running pip.
//!
//! One parallel walk of the prefix takes the stat of every file; what installers wrote (`RECORD`, `METADATA`, …) is read
//! in parallel; everything after that is a pure assignment of files to distributions. Nothing of the environment is
//! changed, no code in it is run, and its interpreter is started once and its answer kept in the client's cache.
//!
//! # What happens with
//!
//! | found | behaviour |
//! | --- | --- |
//! | a file that several distributions list | the first by name whose RECORD has its hash, else nobody; see [`Contested`] |
//! | files that RECORD lists and that are not there | reported; the rest is packed |
//! | `.dist-info` without METADATA | name and version from its path; reported |
//! | `.dist-info` or `.egg-info` without a list of files | its modules by `top_level.txt`, else by its name |
//! | `.dist-info` without either | what is left is packed as files that nobody owns; reported |
//! | two versions of one project | the one with fewer missing files, then the one written last; reported |
//! | `~name`, left by an interrupted `pip uninstall` | left out; reported |
//! | a link to a place in the environment | kept, made relative |
//! | a link to a file outside | the file itself, in its place |
//! | a link to a directory outside, or to nothing | left out; reported |
//! | empty directories, sockets, pipes | left out |
//! | the virtual environment's own files | left out: `pyvenv.cfg`, interpreters, `activate`, hidden files at the top |
//! | byte-code without source, or of another interpreter or optimisation level | left out |
//! | a prefix that is a project's folder too (`python -m venv .`) | of what nobody owns only `bin`, `lib`, `share`, `etc` |
//! | an interpreter's own prefix | its site-packages, and what RECORD lists elsewhere; reported |
//! | a conda prefix | all of it but the interpreter, headers, `pkgs` and `envs`; reported |
//! | `include-system-site-packages = true` | what is installed in the base interpreter is not packed; reported |

mod assign;
mod editable;
pub mod elf;
mod error;
mod installed;
mod metadata;
pub mod model;
mod names;
mod own;
mod prefix;
mod python;
pub mod selection;
mod tree;
mod walk;

use std::fs;
use std::path::{Path, PathBuf};

use cpack_artifact::SafePath;

use assign::{Assigned, Owner, Rules};
use installed::{Installed, Inventory};
use own::OwnFiles;
use prefix::Layout;
use tree::{Site, Tree};

pub use error::DiscoverError;
pub use metadata::normalise;
pub(crate) use metadata::without_credentials;
pub use model::{
    Contested, DirectUrl, Distribution, Editable, EditableForm, EntryPoint, Environment, FileKind, FileStat, Finding,
    FindingKind, ImportSource, PythonInfo, PythonKind, Suspect,
};
pub(crate) use names::module_name;
pub use prefix::{ActiveVariables, active_prefix};
pub use selection::{Selection, UnknownName};
pub use walk::walk_tree;

/// A file changed this long after RECORD was written was not written by the installer: 2 seconds, since installers write
/// RECORD last and some file systems keep whole seconds.
const AFTER_INSTALLATION_NS: i64 = 2_000_000_000;

/// How to discover.
#[derive(Debug, Clone)]
pub struct DiscoverOptions {
    /// The client's cache, in which the interpreter's answer is kept.
    pub cache_dir: PathBuf,
    /// Facts of the interpreter that the environment is for, where it is not the one in its `bin`: packing for another
    /// platform. The one in `bin` is then not asked.
    pub python: Option<PythonInfo>,
}

/// Discovers the environment in `prefix`.
pub fn discover(prefix: &Path, options: &DiscoverOptions) -> Result<Environment, DiscoverError> {
    let layout = Layout::of(prefix)?;
    let (python, base_sites) = match &options.python {
        Some(python) => (python.clone(), Vec::new()),
        None => {
            let answer = python::ask(&layout, &options.cache_dir)?;
            let base_sites = answer.sites.clone();
            (answer.into_info(&layout), base_sites)
        }
    };
    let sites = sites(&layout, &python, base_sites)?;
    let at = format!("lib/{}/site-packages", python.lib_name);
    let Ok(site_packages) = SafePath::new(at.as_bytes()) else {
        return Err(DiscoverError::Interpreter {
            path: layout.executable,
            reason: format!("it keeps modules in {at}"),
        });
    };
    let at = at.as_bytes();

    let mut tree = Tree::walk(&layout.prefix, python.kind, &sites, at)?;
    let mut inventory = installed::read(&tree, &layout.prefix, &sites, at);
    if matches!(python.kind, PythonKind::System | PythonKind::Standalone) {
        tree.add_listed(&layout.prefix, listed_files(&inventory, &sites, at));
    }
    let own = OwnFiles::new(&layout.prefix, &python);
    let mut assigned = assign::assign(
        &tree.files,
        &inventory,
        &Rules {
            left_out: &|file| own.contains(file.path.as_bytes()),
            read: &|file| fs::read(located(&layout.prefix, file)).ok(),
            cache_tag: &python.cache_tag,
            outside: &tree.outside_links.iter().map(|(link, _)| link.path.as_bytes()).collect(),
        },
    );

    let mut warnings = prefix_findings(&layout, &python, &tree);
    for findings in [&mut tree.findings, &mut inventory.findings, &mut assigned.findings] {
        warnings.append(findings);
    }
    let contested = std::mem::take(&mut assigned.contested);
    let (distributions, unowned) = distribute(tree.files, inventory.installed, assigned, at);
    let mut environment = Environment {
        prefix: layout.prefix,
        site_packages,
        python,
        distributions,
        unowned,
        editables: Vec::new(),
        contested,
        warnings,
    };
    let mut links = tree.outside_links;
    editable::separate(&mut environment, &mut links);
    let links = links.iter().filter(|(link, _)| !own.contains(link.path.as_bytes()));
    environment.warnings.extend(links.map(outside_link));
    Ok(environment)
}

/// Facts of the interpreter of the environment in `prefix`, without looking at what is installed.
pub fn python_info(prefix: &Path, cache_dir: &Path) -> Result<PythonInfo, DiscoverError> {
    let layout = Layout::of(prefix)?;
    Ok(python::ask(&layout, cache_dir)?.into_info(&layout))
}

/// The directories of installed modules.
fn sites(layout: &Layout, python: &PythonInfo, base_sites: Vec<PathBuf>) -> Result<Vec<Site>, DiscoverError> {
    let dirs = match python.kind {
        PythonKind::Venv | PythonKind::Conda => {
            let lib = layout.prefix.join("lib").join(&python.lib_name);
            vec![lib.join("site-packages")]
        }
        PythonKind::System | PythonKind::Standalone => base_sites,
    };
    let sites: Vec<Site> = dirs.iter().filter(|dir| dir.is_dir()).cloned().map(Site::new).collect();
    if sites.is_empty() {
        let missing = dirs.first().map(|dir| dir.display().to_string()).unwrap_or_default();
        let reason = format!("it has no {missing}; create it again");
        return Err(DiscoverError::NotAnEnvironment { path: layout.prefix.clone(), reason });
    }
    Ok(sites)
}

/// The files that metadata lists, with where they are on disk.
fn listed_files<'a>(
    inventory: &'a Inventory,
    sites: &'a [Site],
    at: &'a [u8],
) -> impl Iterator<Item = (Vec<u8>, PathBuf)> + 'a {
    use std::os::unix::ffi::OsStrExt as _;
    inventory.installed.iter().filter_map(|i| Some((i, sites.get(i.site)?))).flat_map(move |(installed, site)| {
        let outside = installed.claims.iter().filter(move |claim| tree::below(&claim.path, at).is_none());
        outside.map(|claim| (claim.path.clone(), site.root.join(std::ffi::OsStr::from_bytes(&claim.path))))
    })
}

/// Where a file is on disk.
fn located(prefix: &Path, file: &FileStat) -> PathBuf {
    file.source.as_deref().map_or_else(|| prefix.join(&file.path), Path::to_owned)
}

fn outside_link((link, target): &(FileStat, PathBuf)) -> Finding {
    let message =
        format!("{} is left out: it is a link to the folder {}, outside the environment", link.path, target.display());
    Finding::new(FindingKind::Outside, message)
}

/// What is to be said of the prefix as a whole.
fn prefix_findings(layout: &Layout, python: &PythonInfo, tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let prefix = layout.prefix.display();
    let mut say = |kind, message: String| findings.push(Finding::new(kind, message));
    if layout.is_job {
        let message =
            format!("{prefix} is the environment of a booted job: it is packed without the job's editable projects");
        say(FindingKind::Editable, message);
    }
    match python.kind {
        PythonKind::System | PythonKind::Standalone => say(
            FindingKind::SystemPython,
            format!(
                "{prefix} is an interpreter's own prefix, no virtual environment: all that is installed in its site-packages is packed; use a virtual environment to pack only what is needed"
            ),
        ),
        PythonKind::Conda => say(
            FindingKind::Conda,
            format!(
                "{prefix} is a conda prefix: libraries of conda packages are packed as files that nobody owns, and what has the prefix written in it may not work elsewhere; a virtual environment packs better"
            ),
        ),
        PythonKind::Venv => {}
    }
    if layout.config.system_site_packages {
        say(
            FindingKind::SystemSitePackages,
            format!(
                "{prefix} also sees what is installed in {}, which is not packed; install what is needed into the environment",
                python.base_prefix.display()
            ),
        );
    }
    let library = format!("lib/{}/", python.lib_name);
    let other =
        |f: &&FileStat| own::is_other_version(f.path.as_bytes()) && !f.path.as_bytes().starts_with(library.as_bytes());
    if let Some(file) = tree.files.iter().find(other).filter(|_| python.kind == PythonKind::Venv) {
        let folder: Vec<_> = file.path.components().take(2).map(String::from_utf8_lossy).collect();
        let folder = folder.join("/");
        say(
            FindingKind::OtherVersion,
            format!("{prefix}/{folder} is left out: the environment's Python is {}; delete it", python.tag),
        );
    }
    findings
}

/// Moves files to their owners.
fn distribute(
    files: Vec<FileStat>,
    installed: Vec<Installed>,
    mut assigned: Assigned,
    at: &[u8],
) -> (Vec<Distribution>, Vec<FileStat>) {
    let described = std::mem::take(&mut assigned.described);
    let suspects: Vec<Vec<Suspect>> =
        installed.iter().zip(described).map(|(installed, described)| suspects(installed, &described, &files)).collect();
    let mut own: Vec<Vec<FileStat>> = installed.iter().map(|i| Vec::with_capacity(i.claims.len())).collect();
    let mut unowned = Vec::new();
    for (file, owner) in files.into_iter().zip(assigned.owners) {
        match owner {
            Owner::Distribution(d) => own.get_mut(d as usize).into_iter().for_each(|own| own.push(file.clone())),
            Owner::Nobody => unowned.push(file),
            Owner::LeftOut => {}
        }
    }
    let together = installed.into_iter().zip(own).zip(suspects);
    let distributions = together.map(|((installed, files), suspects)| Distribution {
        import_names: names::import_names(&files, at),
        name: installed.name,
        display_name: installed.headers.name,
        version: installed.headers.version,
        info: installed.info,
        files,
        requires: installed.headers.requires,
        requires_python: installed.headers.requires_python,
        entry_points: installed.entry_points,
        direct_url: installed.direct_url,
        tags: installed.tags,
        installer: installed.installer,
        suspects,
    });
    (distributions.collect(), unowned)
}

/// Files whose stat data says that they may not be what was installed.
fn suspects(installed: &Installed, described: &[(u32, u32)], files: &[FileStat]) -> Vec<Suspect> {
    let after = installed.listed_ns.map_or(i64::MAX, |ns| ns.saturating_add(AFTER_INSTALLATION_NS));
    let suspect = |(file, claim): &(u32, u32)| {
        let (file, claim) = (files.get(*file as usize)?, installed.claims.get(*claim as usize)?);
        let hash = claim.hash.clone()?;
        let certain = claim.size.is_some_and(|size| size != file.size);
        let is_link = matches!(file.kind, FileKind::Link(_));
        (!is_link && (certain || file.mtime_ns > after)).then(|| Suspect { path: file.path.clone(), hash, certain })
    };
    described.iter().filter_map(suspect).collect()
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
