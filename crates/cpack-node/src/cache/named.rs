//! What live processes of this user show: where locks prove nothing, or a program closed all descriptors, leases do not tell
//! what is used, and these names do.

use std::collections::HashSet;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::own_directory::{Cache, ENVIRONMENTS, JOBS, LAYERS};

/// The names of environments and layers below `root` that this user's processes map, were started with, or have in
/// their environment variables: what leases do not show where locks are refused, or a program closed all descriptors.
pub(super) fn named_by_processes(cache: &Cache) -> HashSet<Vec<u8>> {
    let root = cache.root();
    let mut names = HashSet::new();
    let own = std::process::id().to_string();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        if !name.as_bytes().iter().all(u8::is_ascii_digit) || name.as_bytes() == own.as_bytes() {
            continue;
        }
        for file in ["maps", "cmdline", "environ"] {
            if let Ok(text) = fs::read(entry.path().join(file)) {
                collect_names(root, &text, &mut names);
            }
        }
    }
    add_what_jobs_use(cache, &mut names);
    names
}

/// A process that starts from a job prefix uses its environment and its overlays.
fn add_what_jobs_use(cache: &Cache, names: &mut HashSet<Vec<u8>>) {
    for name in
        cache.jobs().unwrap_or_default().into_iter().filter(|name| names.contains(name.as_bytes())).collect::<Vec<_>>()
    {
        let Some((tree, overlays)) = cache.job_parts(&name) else { continue };
        let layers = overlays.iter().filter_map(|files| files.parent());
        let used = layers.chain([tree.as_path()]).filter_map(Path::file_name);
        names.extend(used.map(|name| name.as_bytes().to_vec()));
    }
}

/// Adds to `names` what follows `<root>/environments/`, `<root>/layers/` or `<root>/jobs/` in `text`.
fn collect_names(root: &Path, text: &[u8], names: &mut HashSet<Vec<u8>>) {
    let root = root.as_os_str().as_bytes();
    for at in memchr::memmem::find_iter(text, root) {
        let rest = text.get(at + root.len()..).unwrap_or_default();
        for directory in [ENVIRONMENTS, LAYERS, JOBS] {
            let prefix = format!("/{directory}/");
            if let Some(name) = rest.strip_prefix(prefix.as_bytes()) {
                let ends = |b: &u8| !b.is_ascii_alphanumeric() && *b != b'-';
                names.insert(name.iter().take_while(|b| !ends(b)).copied().collect());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BootId, Place, PlaceKind};
    use super::*;
    use cpack_format::Digest;

    #[test]
    fn names_are_found_in_what_processes_show() {
        let mut names = HashSet::new();
        let text =
            b"7f00 r-xp /c/cpack-0/environments/abc-1/lib/x.so\nPATH=/c/cpack-0/layers/def/files:/c/cpack-0/other\0/c/cpack-0/jobs/abc-1-2/bin/python\0";
        collect_names(Path::new("/c/cpack-0"), text, &mut names);
        assert_eq!(names, HashSet::from([b"abc-1".to_vec(), b"def".to_vec(), b"abc-1-2".to_vec()]));
    }

    #[test]
    fn names_of_a_used_job_prefix_include_its_environment_and_overlays() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = Place { path: directory.path().into(), kind: PlaceKind::Temporary };
        let cache = Cache::create(&place, &BootId::new("b")).expect("a cache");
        let overlay = Digest::of(b"overlay");
        let (tree, overlays) = (cache.environment_path("e1-0a"), [cache.layer_files(&overlay)]);
        let name = cache.job_name(&tree, &overlays);
        cache.write_job_records(&cache.job_path(&name), &tree, &overlays).expect("writes");
        let mut names = HashSet::new();
        add_what_jobs_use(&cache, &mut names);
        assert_eq!(names, HashSet::new());
        names.insert(name.clone().into_bytes());
        add_what_jobs_use(&cache, &mut names);
        let expected = [name.into_bytes(), b"e1-0a".to_vec(), overlay.to_hex().as_bytes().to_vec()];
        assert_eq!(names, HashSet::from(expected));
    }
}
