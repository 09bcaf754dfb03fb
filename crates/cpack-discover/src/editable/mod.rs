//! Finds editable projects. Their files become an overlay of the job and are not part of the environment.
//!
//! | form | in site-packages | in the overlay |
//! | --- | --- | --- |
//! | [`EditableForm::PthPath`] | a `.pth` file with a folder (all backends) | the names that the project provides in that folder |
//! | [`EditableForm::Finder`] | `__editable___…_finder.py` (setuptools) | the packages and modules that it maps |
//! | [`EditableForm::Proxy`] | a module of the `editables` package (hatchling exact, PDM) | the packages that it maps |
//! | [`EditableForm::Redirect`] | `_editable_skbc_…py` (scikit-build-core) | the modules that it maps, and built files in site-packages |
//! | [`EditableForm::Meson`] | `_…_editable_loader.py` (meson-python) | the files of meson's install plan |
//! | [`EditableForm::Link`] | links (flit) | their targets |
//! | [`EditableForm::EggLink`] | `.egg-link` (`setup.py develop`) | the names of the `.egg-info` beside the sources |
//!
//! Each overlay also has the project's metadata, so that Python finds versions and entry points, and its scripts in
//! `NAME-VERSION.data/scripts`, as a wheel: the boot puts them beside the Python of the job. A `.pth` file may name only a folder,
//! which may be a whole working copy: all that can be imported from it belongs to the overlay, but what the rules in [`project`]
//! leave out, and what is left out is said. A project that is declared editable but has its modules in site-packages
//! (`maturin develop` without Python sources) is an ordinary distribution.

mod backend;
mod egg_link;
mod forms;
mod imports;
mod literal;
mod overlay;
mod project;
mod pth;
mod shadow;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use cpack_format::SafePath;

use super::model::{
    Distribution, Editable, EditableForm, EntryPoint, Environment, FileStat, Finding, FindingKind, ImportSource,
};
use super::prefix_files::below;
use super::{names, walk};
use backend::Declared;
use forms::Places;
use overlay::Overlay;
use project::{Known, Provided};
use pth::PthFile;

/// Moves editable projects out of the distributions and the unowned files of `environment`. `links` are links to folders
/// outside the environment; those of editable projects are removed from it.
pub(super) fn separate(environment: &mut Environment, links: &mut Vec<(FileStat, PathBuf)>) {
    let mut findings = Vec::new();
    let mut distributions = Vec::with_capacity(environment.distributions.len());
    for distribution in std::mem::take(&mut environment.distributions) {
        match examine(environment, &distribution, links, &mut findings) {
            Some(editable) => environment.editables.push(editable),
            None => distributions.push(distribution),
        }
    }
    environment.distributions = distributions;
    let linked = egg_link::egg_links(environment, &mut findings);
    environment.editables.extend(linked);
    environment.editables.sort_by(|a, b| a.name.cmp(&b.name));
    environment
        .unowned
        .extend(environment.editables.iter_mut().flat_map(|editable| std::mem::take(&mut editable.data)));
    environment.unowned.sort_by(|a, b| a.path.cmp(&b.path));
    links.retain(|(link, _)| !environment.editables.iter().any(|e| e.own_files.iter().any(|f| f.path == link.path)));

    let inside: Vec<Vec<u8>> =
        environment.editables.iter().filter_map(|e| inside(environment, &e.project_dir)).collect();
    environment.unowned.retain(|file| !inside.iter().any(|folder| below(file.path.as_bytes(), folder).is_some()));
    findings.extend(pth_findings(environment));
    for editable in &environment.editables {
        findings.extend(shadow::shadows(environment, editable));
    }
    environment.warnings.extend(findings);
}

/// The path of a project's folder in the environment: `src/x`, where pip puts what it checked out.
fn inside(environment: &Environment, folder: &Path) -> Option<Vec<u8>> {
    let inside = folder.strip_prefix(&environment.prefix).ok()?.as_os_str().as_bytes();
    (!inside.is_empty()).then(|| inside.to_vec())
}

/// The name of a file, if it is directly in site-packages.
fn top_name<'a>(environment: &Environment, file: &'a FileStat) -> Option<&'a [u8]> {
    below(file.path.as_bytes(), environment.site_packages.as_bytes()).filter(|name| !name.contains(&b'/'))
}

/// How a project is installed.
struct Installation {
    form: EditableForm,
    places: Places,
    /// The folder of the project, if it is known.
    project_dir: Option<PathBuf>,
    /// Modules and `.pth` files in site-packages that a build backend generated. They are not part of the project.
    generated: Vec<SafePath>,
    /// Links in site-packages to its folders.
    links: Vec<FileStat>,
}

impl Installation {
    /// The folder of the project; a guess from its sources if it is unknown.
    fn project_dir(&self) -> PathBuf {
        let place = self.places.roots.first().or(self.places.modules.first().map(|(_, path)| path));
        let guess = place.map(|place| overlay::project_above(place).unwrap_or(place).to_owned());
        self.project_dir.clone().or(guess).unwrap_or_default()
    }
}

/// Finds out whether a distribution is an editable project, and what that provides.
fn examine(
    environment: &Environment,
    distribution: &Distribution,
    links: &[(FileStat, PathBuf)],
    findings: &mut Vec<Finding>,
) -> Option<Editable> {
    let declared = distribution.direct_url.as_ref().filter(|url| url.editable);
    let project_dir = declared.and_then(|url| overlay::folder_of_url(&url.url));
    let installation = installed_by_pth(environment, distribution, project_dir.clone());
    let linked = || installed_by_links(environment, distribution, links, project_dir.clone()?);
    let Some(installation) = installation.or_else(linked) else {
        findings.extend(declared.and_then(|_| unknown_form(environment, distribution, project_dir.as_deref())));
        return None;
    };
    let (scripts, mut own_files): (Vec<FileStat>, Vec<FileStat>) =
        distribution.files.iter().cloned().partition(|file| file.path.as_bytes().starts_with(b"bin/"));
    let mut overlay = Overlay::new(&environment.python.soabi);
    for script in &scripts {
        overlay.add_script(&distribution.info, script, &environment.source(script));
    }
    for file in &own_files {
        if let Some(path) = place_in_overlay(environment, &installation, file) {
            overlay.insert(FileStat { path, source: Some(environment.source(file).into()), ..file.clone() });
        }
    }
    let top_level = SafePath::new(&walk::join(distribution.info.as_bytes(), b"top_level.txt")).ok();
    let top_level = top_level.and_then(|path| fs::read_to_string(environment.prefix.join(path)).ok());
    let project = Project {
        name: &distribution.name,
        dir: &installation.project_dir(),
        top_level: top_level.as_deref(),
        entry_points: &modules_of(&distribution.entry_points),
    };
    let sources = project.fill(&installation.places, &mut overlay, findings);
    own_files.extend(installation.links.iter().cloned());
    // Data that was copied to `share` or `etc` is not in a folder on the path: it stays in the environment.
    let site = environment.site_packages.as_bytes();
    let (own_files, data) = own_files.into_iter().partition(|file| below(file.path.as_bytes(), site).is_some());
    let (files, extensions, left_out) = overlay.finish();
    findings.extend(left_out);
    Some(Editable {
        name: distribution.name.clone(),
        display_name: distribution.display_name.clone(),
        version: distribution.version.clone(),
        project_dir: project.dir.to_owned(),
        form: installation.form,
        sources,
        files,
        extensions,
        own_files,
        data,
        scripts,
        requires: distribution.requires.clone(),
        entry_points: distribution.entry_points.clone(),
    })
}

/// The modules that entry points name.
fn modules_of(entry_points: &[EntryPoint]) -> Vec<String> {
    entry_points.iter().map(|point| point.value.split(':').next().unwrap_or_default().trim().to_owned()).collect()
}

/// The path in the overlay of a project's file in site-packages. `None` for `.pth` files that only lead to its sources, the
/// modules that they load, and byte-code.
fn place_in_overlay(environment: &Environment, installation: &Installation, file: &FileStat) -> Option<SafePath> {
    let place = below(file.path.as_bytes(), environment.site_packages.as_bytes())?;
    let is_code = place.ends_with(b".pyc") || installation.generated.contains(&file.path);
    let is_hidden = place.first() == Some(&b'.');
    if is_code || is_hidden { None } else { SafePath::new(place).ok() }
}

/// Looks for `.pth` files that name a project's sources.
fn installed_by_pth(
    environment: &Environment,
    distribution: &Distribution,
    project_dir: Option<PathBuf>,
) -> Option<Installation> {
    let site = environment.prefix.join(&environment.site_packages);
    let (mut roots, mut form) = (Vec::new(), None);
    let (mut places, mut generated) = (Places::default(), Vec::new());
    let is_pth = |file: &&FileStat| top_name(environment, file).is_some_and(|name| name.ends_with(b".pth"));
    for file in distribution.files.iter().filter(is_pth) {
        let Ok(bytes) = fs::read(environment.source(file)) else { continue };
        let pth = PthFile::parse(&bytes, &site);
        if pth.folders.iter().any(|folder| !folder.starts_with(&site)) {
            generated.push(file.path.clone());
        }
        let is_root = |folder: &PathBuf| {
            let known = project_dir.is_some() || overlay::project_above(folder).is_some();
            known && folder.is_dir() && !folder.starts_with(&site)
        };
        roots.extend(pth.folders.into_iter().filter(is_root));
        for import in pth.imports {
            let name = format!("{import}.py");
            let module = |file: &&FileStat| top_name(environment, file) == Some(name.as_bytes());
            let Some(module) = distribution.files.iter().find(module) else { continue };
            let source = fs::read_to_string(environment.source(module)).unwrap_or_default();
            if let Some((found, more)) = forms::generated_module(&source) {
                generated.push(file.path.clone());
                form = Some(found);
                places.modules.extend(more.modules);
                places.files.extend(more.files);
                generated.push(module.path.clone());
            }
        }
    }
    if !roots.is_empty() {
        form = form.or(Some(EditableForm::PthPath));
    }
    // Lines of one file that name a folder again change nothing.
    let mut seen = BTreeSet::new();
    places.roots = roots.into_iter().filter(|root| seen.insert(root.clone())).collect();
    Some(Installation { form: form?, places, project_dir, generated, links: Vec::new() })
}

/// Looks for links into the project's folder.
fn installed_by_links(
    environment: &Environment,
    distribution: &Distribution,
    links: &[(FileStat, PathBuf)],
    project_dir: PathBuf,
) -> Option<Installation> {
    let real = fs::canonicalize(&project_dir).unwrap_or_else(|_| project_dir.clone());
    let folders = links.iter().filter(|(_, target)| target.starts_with(&real));
    let folders = folders.filter_map(|(link, target)| Some((link, top_name(environment, link)?, target)));
    let mut places = Places::default();
    let mut own = Vec::new();
    for (link, name, target) in folders {
        places.modules.push((String::from_utf8_lossy(name).into_owned(), target.clone()));
        own.push(link.clone());
    }
    let leads_there = |file: &FileStat| file.source.as_deref().is_some_and(|source| source.starts_with(&real));
    if own.is_empty() && !distribution.files.iter().any(leads_there) {
        return None;
    }
    let project_dir = Some(project_dir);
    Some(Installation { form: EditableForm::Link, places, project_dir, generated: Vec::new(), links: own })
}

/// Warns of a distribution that is declared editable and has neither modules nor a known reference to its sources. What a
/// build backend wrote to find them there, a file at the top of site-packages that names their folder, is no module of it.
fn unknown_form(environment: &Environment, distribution: &Distribution, project_dir: Option<&Path>) -> Option<Finding> {
    let names_sources = |file: &FileStat| {
        let name = top_name(environment, file).filter(|name| name.ends_with(b".py") || name.ends_with(b".pth"));
        let text = name.and_then(|_| fs::read_to_string(environment.source(file)).ok());
        text.zip(project_dir?.to_str()).map(|(text, folder)| text.contains(folder))
    };
    let message = format!(
        "{} {} is installed as editable in a way that is not known, and none of its modules are packed; install it again, or without -e",
        distribution.display_name, distribution.version
    );
    // A program without modules is all of a project in another language (maturin's `bin`).
    let is_program = distribution.entry_points.is_empty()
        && distribution.files.iter().any(|file| file.path.as_bytes().starts_with(b"bin/"));
    let is_unknown = distribution.import_names.is_empty() && !is_program
        || distribution.files.iter().any(|file| names_sources(file) == Some(true));
    is_unknown.then(|| Finding::new(FindingKind::Editable, message))
}

struct Project<'a> {
    /// Normalised.
    name: &'a str,
    dir: &'a Path,
    top_level: Option<&'a str>,
    /// Modules of its entry points.
    entry_points: &'a [String],
}

impl Project<'_> {
    /// Adds the project's packages and modules to its overlay, and returns them.
    fn fill(&self, places: &Places, overlay: &mut Overlay<'_>, findings: &mut Vec<Finding>) -> Vec<ImportSource> {
        let configuration: Option<toml::Table> =
            fs::read_to_string(self.dir.join("pyproject.toml")).ok().and_then(|text| text.parse().ok());
        let setup_cfg = fs::read_to_string(self.dir.join("setup.cfg")).ok();
        let declared = Declared::read(configuration.as_ref(), setup_cfg.as_deref());
        let entry_points = self.entry_points;
        let known = Known { dir: self.dir, top_level: self.top_level, declared: &declared, entry_points };
        let mut modules = places.modules.clone();
        for root in &places.roots {
            let is_project_folder = fs::canonicalize(root).ok() == fs::canonicalize(self.dir).ok();
            let Provided { names, left_out } = project::provided(root, is_project_folder, known);
            findings.extend(self.left_out(root, &left_out));
            if names.is_empty() {
                let message = format!(
                    "{}: what the editable project provides in {} cannot be told; name its packages in pyproject.toml or install it without -e",
                    self.name,
                    root.display()
                );
                findings.push(Finding::new(FindingKind::Editable, message));
            }
            modules.extend(names.into_iter().map(|name| {
                let path = root.join(&name);
                (name, path)
            }));
        }
        let (found, lost) = forms::resolve(&modules, overlay.soabi());
        for name in lost {
            let message = format!(
                "{}: the editable project's {name} is not where its installation says; install it again",
                self.name
            );
            findings.push(Finding::new(FindingKind::Editable, message));
        }
        let mut sources = Vec::new();
        for (name, place, path) in found {
            overlay.add(&place, &path);
            if let Ok(target) = SafePath::new(&place) {
                sources.push(ImportSource { name, target, path });
            }
        }
        for (place, path) in &places.files {
            overlay.add(place, path);
            let (Some(name), Ok(target)) = (names::import_name(place), SafePath::new(place)) else { continue };
            sources.push(ImportSource { name: name.to_owned(), target, path: path.clone() });
        }
        sources.sort_unstable();
        sources
    }
}

impl Project<'_> {
    /// What the virtual environment could import and the booted one cannot.
    fn left_out(&self, root: &Path, names: &[String]) -> Option<Finding> {
        let message = format!(
            "{}: {} in {} {} not packed with the editable project; name {} in its pyproject.toml to have {}",
            self.name,
            names.join(", "),
            root.display(),
            if names.len() == 1 { "is" } else { "are" },
            if names.len() == 1 { "it" } else { "them" },
            if names.len() == 1 { "it" } else { "them" },
        );
        (!names.is_empty()).then(|| Finding::new(FindingKind::Editable, message))
    }
}

/// Warns of folders that `.pth` files of no project add to `sys.path`, and that are not packed.
fn pth_findings(environment: &Environment) -> Vec<Finding> {
    let site = environment.prefix.join(&environment.site_packages);
    let is_pth = |file: &&FileStat| top_name(environment, file).is_some_and(|name| name.ends_with(b".pth"));
    let mut findings = Vec::new();
    for file in environment.unowned.iter().filter(is_pth) {
        let bytes = fs::read(environment.source(file)).unwrap_or_default();
        let folders = PthFile::parse(&bytes, &site).folders;
        let is_packed = |folder: &Path| environment.editables.iter().any(|editable| editable.is_at(folder));
        for folder in folders.iter().filter(|f| !f.starts_with(&environment.prefix) && !is_packed(f)) {
            let message = format!(
                "{} puts {} on the path, which is outside the environment and not packed; install that project",
                file.path,
                folder.display()
            );
            findings.push(Finding::new(FindingKind::Outside, message));
        }
    }
    findings
}

#[cfg(test)]
mod tests;
