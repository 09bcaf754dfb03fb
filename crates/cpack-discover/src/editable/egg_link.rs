//! Projects that `setup.py develop` installed.
//!
//! `name.egg-link` in site-packages names the folder of `name.egg-info`, which `easy-install.pth` adds to `sys.path`. Its second
//! line is the relative path from there to the project's folder.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use super::super::metadata::{self, Headers, normalise};
use super::super::model::{Editable, EditableForm, Environment, FileStat, Finding, FindingKind};
use super::forms::Places;
use super::overlay::Overlay;
use super::pth::PthFile;
use super::{Project, top_name};

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
    let project = Project { name: &wanted, dir: &project_dir, top_level: top_level.as_deref() };
    let places = Places { roots: vec![root], ..Places::default() };
    let sources = project.fill(&places, &mut overlay, findings);
    let (files, extensions, left_out) = overlay.finish();
    findings.extend(left_out);
    let is_script = |file: &&FileStat| {
        let name = file.path.as_bytes().strip_prefix(b"bin/");
        entry_points.iter().any(|point| name == Some(point.name.as_bytes()))
    };
    Some(Editable {
        name: wanted,
        form: EditableForm::EggLink,
        sources,
        files,
        extensions,
        own_files: vec![link.clone()],
        scripts: environment.unowned.iter().filter(is_script).cloned().collect(),
        requires: text("requires.txt").map(|t| metadata::egg_requires(&t)).unwrap_or(headers.requires),
        display_name: headers.name,
        version: headers.version,
        entry_points,
        project_dir,
    })
}
