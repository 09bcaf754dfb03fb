//! Projects that `setup.py develop` installed.
//!
//! `name.egg-link` in site-packages names the folder of `name.egg-info`, which `easy-install.pth` adds to `sys.path`. Its second
//! line is the relative path from there to the project's folder.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use cpack_format::SafePath;

use super::super::metadata::{self, Headers, normalise};
use super::super::model::{Editable, EditableForm, EntryPoint, Environment, FileStat, Finding, FindingKind};
use super::forms::Places;
use super::literal;
use super::overlay::Overlay;
use super::pth::PthFile;
use super::{Project, modules_of, top_name};

/// Moves such projects out of the unowned files of `environment`.
pub(super) fn egg_links(environment: &mut Environment, findings: &mut Vec<Finding>) -> Vec<Editable> {
    let is_link = |file: &&FileStat| top_name(environment, file).is_some_and(|name| name.ends_with(b".egg-link"));
    let links: Vec<FileStat> = environment.unowned.iter().filter(is_link).cloned().collect();
    let mut editables: Vec<Editable> =
        links.iter().filter_map(|link| read_egg_link(environment, link, findings)).collect();
    let Some(first) = editables.first_mut() else { return editables };

    // `easy-install.pth` lists the folders of all such projects, and may list eggs too.
    let site = environment.prefix.join(&environment.site_packages);
    let easy = environment.unowned.iter().find(|file| top_name(environment, file) == Some(b"easy-install.pth"));
    if let Some(easy) = easy
        && let Ok(bytes) = fs::read(environment.source(easy))
        && PthFile::parse(&bytes, &site).folders.iter().all(|folder| !folder.starts_with(&site))
    {
        first.own_files.push(easy.clone());
    }
    let is_own = |file: &FileStat| {
        let mut own = editables.iter().flat_map(|e| e.own_files.iter().chain(&e.scripts));
        own.any(|own| own.path == file.path)
    };
    environment.unowned.retain(|file| !is_own(file));
    editables
}

fn read_egg_link(environment: &Environment, link: &FileStat, findings: &mut Vec<Finding>) -> Option<Editable> {
    let text = fs::read(environment.source(link)).ok()?;
    let mut lines = text.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).map(OsStr::from_bytes);
    let root = PathBuf::from(lines.next()?);
    let stem = top_name(environment, link)?.strip_suffix(b".egg-link")?;
    let wanted = normalise(&String::from_utf8_lossy(stem));
    let entries = fs::read_dir(&root).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_info = |path: &PathBuf| {
        let name = path.file_name().and_then(OsStr::to_str).and_then(|name| name.strip_suffix(".egg-info"));
        name.is_some_and(|name| normalise(name) == wanted)
    };
    let Some(info) = entries.into_iter().find(is_info) else {
        let message = format!("{}: {} has no metadata of it; install it again", link.path, root.display());
        findings.push(Finding::new(FindingKind::Editable, message));
        return None;
    };
    let read = |name: &str| fs::read(info.join(name)).ok();
    let text = |name: &str| read(name).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let headers = read("PKG-INFO").as_deref().and_then(Headers::parse);
    let headers = headers.unwrap_or_else(|| Headers { name: wanted.clone(), ..Headers::default() });
    let entry_points = text("entry_points.txt").map(|t| metadata::entry_points(&t)).unwrap_or_default();
    let project_dir = root.join(lines.next().unwrap_or_default());
    let project_dir = fs::canonicalize(&project_dir).unwrap_or(project_dir);

    let mut overlay = Overlay::new(&environment.python.soabi);
    overlay.add(info.file_name().unwrap_or_default().as_bytes(), &info);
    let top_level = text("top_level.txt");
    let modules = modules_of(&entry_points);
    let project = Project { name: &wanted, dir: &project_dir, top_level: top_level.as_deref(), entry_points: &modules };
    let places = Places { roots: vec![root], ..Places::default() };
    let sources = project.fill(&places, &mut overlay, findings);
    let (scripts, sources_of_scripts) = scripts(environment, &wanted, &entry_points);
    if let Ok(info) = SafePath::new(info.file_name().unwrap_or_default().as_bytes()) {
        for (script, source) in scripts.iter().zip(&sources_of_scripts) {
            overlay.add_script(&info, script, source);
        }
    }
    let (files, extensions, left_out) = overlay.finish();
    findings.extend(left_out);
    Some(Editable {
        name: wanted,
        form: EditableForm::EggLink,
        sources,
        files,
        extensions,
        own_files: vec![link.clone()],
        data: Vec::new(),
        scripts,
        requires: text("requires.txt").map(|t| metadata::egg_requires(&t)).unwrap_or(headers.requires),
        display_name: headers.name,
        version: headers.version,
        entry_points,
        project_dir,
    })
}

/// The scripts that `setup.py develop` wrote for a project, and where what they should run is: a script of the project is
/// replaced by one that runs it from its folder, and is told by its third line.
fn scripts(environment: &Environment, name: &str, points: &[EntryPoint]) -> (Vec<FileStat>, Vec<PathBuf>) {
    let mut found = (Vec::new(), Vec::new());
    for file in &environment.unowned {
        let Some(script) = file.path.as_bytes().strip_prefix(b"bin/") else { continue };
        let place = environment.source(file);
        let source = if points.iter().any(|point| script == point.name.as_bytes()) {
            Some(place)
        } else if file.size < MAX_WRAPPER {
            developed(&fs::read(&place).unwrap_or_default(), name)
        } else {
            None
        };
        if let Some(source) = source {
            found.0.push(file.clone());
            found.1.push(source);
        }
    }
    found
}

/// Wrappers of scripts have some hundred bytes.
const MAX_WRAPPER: u64 = 4096;

/// The script that a wrapper written for the project `name` runs.
fn developed(wrapper: &[u8], name: &str) -> Option<PathBuf> {
    let text = std::str::from_utf8(wrapper).ok()?;
    let (_, rest) = text.split_once("# EASY-INSTALL-DEV-SCRIPT: '")?;
    let of = rest.split("==").next().unwrap_or_default();
    let file = literal::assigned(text, "__file__")?;
    (normalise(of) == name).then(|| PathBuf::from(file.text().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrappers_of_scripts_lead_to_them() {
        let text = b"#!/v/bin/python\n# EASY-INSTALL-DEV-SCRIPT: 'My.Proj==1.2','tool'\n__requires__ = 'My.Proj==1.2'\n\
            __import__('pkg_resources').require('My.Proj==1.2')\n__file__ = '/src/bin/tool'\nwith open(__file__) as f:\n";
        assert_eq!(developed(text, "my-proj"), Some("/src/bin/tool".into()));
        assert_eq!(developed(text, "other"), None);
        assert_eq!(developed(b"#!/v/bin/python\nprint()\n", "my-proj"), None);
    }
}
