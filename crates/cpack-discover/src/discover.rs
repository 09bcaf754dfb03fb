//! Discovery, from a prefix to an [`Environment`].

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use cpack_format::SafePath;

use crate::assign::{self, Assigned, Owner, Rules};
use crate::conda::Record;
use crate::error::DiscoverError;
use crate::installed::{self, Installed, Inventory};
use crate::model::{
    CondaPackage, Distribution, Environment, FileKind, FileStat, Finding, FindingKind, PythonInfo, PythonKind, Suspect,
};
use crate::own::{self, OwnFiles};
use crate::prefix::Layout;
use crate::prefix_files::{self, PrefixFiles, Site};
use crate::{conda, editable, names, python, unowned};

/// A file that changed more than 2 seconds after RECORD was written was not written by the installer: installers write
/// RECORD last, and some file systems keep whole seconds.
const AFTER_INSTALLATION_NS: i64 = 2_000_000_000;

/// Options of [`discover`].
#[derive(Debug, Clone)]
pub struct DiscoverOptions {
    /// The client's cache, which keeps the interpreter's answer.
    pub cache_dir: PathBuf,
    /// The interpreter that the environment is for, if that is not the one in its `bin` because another platform is packed
    /// for. The interpreter in `bin` is then not started.
    pub python: Option<PythonInfo>,
    /// Whether a conda environment is discovered whole, by its packages and with its interpreter; else only what can be packed
    /// without them.
    pub whole_conda: bool,
}

/// Discovers the environment in `prefix`.
pub fn discover(prefix: &Path, options: &DiscoverOptions) -> Result<Environment, DiscoverError> {
    discover_layout(Layout::of(prefix)?, options)
}

pub(crate) fn discover_layout(layout: Layout, options: &DiscoverOptions) -> Result<Environment, DiscoverError> {
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

    let (records, damaged) = conda_records(&layout, &python, options);
    let is_whole = !records.is_empty();
    let mut found = PrefixFiles::walk(&layout.prefix, python.kind, &sites, at, conda::hidden_folders(&records))?;
    let mut inventory = installed::read(&found, &layout.prefix, &sites, at);
    let (first_package, packages) = conda::join(records, &mut inventory, &layout.prefix);
    if matches!(python.kind, PythonKind::System | PythonKind::Standalone) {
        found.add_listed(&layout.prefix, listed_files(&inventory, &sites, at));
    }
    let own = OwnFiles::new(&layout.prefix, &python, is_whole);
    let mut assigned = assign::assign(
        &found.files,
        &inventory,
        &Rules {
            left_out: &|file| own.contains(file.path.as_bytes()),
            read: &|file| fs::read(file.on_disk(&layout.prefix)).ok(),
            cache_tag: &python.cache_tag,
            outside: &found.outside_links.iter().map(|(link, _)| link.path.as_bytes()).collect(),
        },
    );

    let mut warnings = prefix_findings(&layout, &python, &found.files, is_whole);
    for findings in [&mut { damaged }, &mut found.findings, &mut inventory.findings, &mut assigned.findings] {
        warnings.append(findings);
    }
    let contested = std::mem::take(&mut assigned.contested);
    let (mut distributions, unowned) = distribute(found.files, inventory.installed, assigned, at);
    let packages = with_files(packages, distributions.split_off(first_package.min(distributions.len())));
    let mut environment = Environment {
        sees_system: layout.config.system_site_packages,
        prefix: layout.prefix,
        site_packages,
        python,
        distributions,
        unowned,
        editables: Vec::new(),
        contested,
        warnings,
        packages,
    };
    let mut links = found.outside_links;
    editable::separate(&mut environment, &mut links);
    let links = links.iter().filter(|(link, _)| !own.contains(link.path.as_bytes()));
    environment.warnings.extend(links.map(outside_link).chain(unowned::much(&environment.unowned)));
    Ok(environment)
}

/// The interpreter of the environment in `prefix`. Distributions are not discovered.
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

/// The files outside site-packages that metadata lists, with their paths on disk.
fn listed_files<'a>(
    inventory: &'a Inventory,
    sites: &'a [Site],
    at: &'a [u8],
) -> impl Iterator<Item = (Vec<u8>, PathBuf)> + 'a {
    inventory.installed.iter().filter_map(|i| Some((i, sites.get(i.site)?))).flat_map(move |(installed, site)| {
        let outside = installed.claims.iter().filter(move |claim| prefix_files::below(&claim.path, at).is_none());
        outside.map(|claim| (claim.path.clone(), site.root.join(std::ffi::OsStr::from_bytes(&claim.path))))
    })
}

/// The records of a conda environment that is to be packed whole; none of any other.
fn conda_records(layout: &Layout, python: &PythonInfo, options: &DiscoverOptions) -> (Vec<Record>, Vec<Finding>) {
    let is_whole = options.whole_conda && python.kind == PythonKind::Conda;
    if is_whole { conda::read(&layout.prefix) } else { Default::default() }
}

/// Conda packages with their files, which were assigned as those of distributions are.
fn with_files(packages: Vec<CondaPackage>, packed: Vec<Distribution>) -> Vec<CondaPackage> {
    let with = |(package, packed): (CondaPackage, Distribution)| {
        let Distribution { files, import_names, suspects, .. } = packed;
        CondaPackage { files, import_names, suspects, ..package }
    };
    packages.into_iter().zip(packed).map(with).collect()
}

fn outside_link((link, target): &(FileStat, PathBuf)) -> Finding {
    let message =
        format!("{} is left out: it is a link to the folder {}, outside the environment", link.path, target.display());
    Finding::new(FindingKind::Outside, message)
}

/// Warnings that concern the whole prefix.
fn prefix_findings(layout: &Layout, python: &PythonInfo, files: &[FileStat], is_whole: bool) -> Vec<Finding> {
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
        PythonKind::Conda if is_whole => {}
        PythonKind::Conda => say(
            FindingKind::Conda,
            format!(
                "{prefix} is a conda prefix: this form holds Python distributions alone, without the interpreter and native packages; upload, launcher, run and pack -o env.tar.gz take the environment whole"
            ),
        ),
        PythonKind::Venv => {}
    }
    if layout.config.system_site_packages {
        say(
            FindingKind::SystemSitePackages,
            format!(
                "{prefix} also sees what is installed in {}, which is neither packed nor seen where it is booted; --system-site-packages pack packs it, node shows what each node has, or install what is needed into the environment",
                python.base_prefix.display()
            ),
        );
    }
    let library = format!("lib/{}/", python.lib_name);
    let other =
        |f: &&FileStat| own::is_other_version(f.path.as_bytes()) && !f.path.as_bytes().starts_with(library.as_bytes());
    if let Some(file) = files.iter().find(other).filter(|_| python.kind == PythonKind::Venv) {
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
            Owner::Unowned => unowned.push(file),
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
        entry_points: installed.entry_points,
        direct_url: installed.direct_url,
        tags: installed.tags,
        suspects,
    });
    (distributions.collect(), unowned)
}

/// Files that may differ from what was installed, as their stat data shows.
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
