//! Files that are packed beside what is installed: a directory that is put on the path, as pex's `--sources-directory`.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use cpack_format::SafePath;

use super::model::{Environment, FileStat};
use super::walk::walk;

/// Adds the files below `directory` to those of `environment` that no distribution owns, as if they were in its
/// site-packages. They replace unowned files at their paths. Byte-code is left out.
pub fn add_sources(environment: &mut Environment, directory: &Path) -> io::Result<()> {
    let site = environment.site_packages.as_bytes().to_vec();
    let mut walked = walk(directory, &site, &|path| path.ends_with(b"/__pycache__"))?;
    for file in &mut walked.files {
        let below = file.path.as_bytes().get(site.len() + 1..).unwrap_or_default();
        let path = SafePath::new(below).map_err(io::Error::other)?;
        file.source = Some(directory.join(&path).into());
    }
    let paths: BTreeSet<&SafePath> = walked.files.iter().map(|file| &file.path).collect();
    let mut unowned: Vec<FileStat> = std::mem::take(&mut environment.unowned);
    unowned.retain(|file| !paths.contains(&file.path));
    environment.warnings.extend(walked.findings);
    unowned.extend(walked.files);
    unowned.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    environment.unowned = unowned;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Fixture, shortened};
    use super::*;

    #[test]
    fn add_sources_puts_files_into_site_packages() {
        let fixture = Fixture::new();
        fixture.module("pkg/a.py", "old");
        fixture.module("z.py", "");
        let directory = fixture.beside("sources");
        fixture.write(directory.join("pkg/a.py"), "new");
        fixture.write(directory.join("pkg/data/b.txt"), "");
        fixture.write(directory.join("pkg/__pycache__/a.cpython-311.pyc"), "");
        let mut environment = fixture.discover();
        add_sources(&mut environment, &directory).expect("reads");
        assert_eq!(shortened(&environment.unowned), ["pkg/a.py", "pkg/data/b.txt", "z.py"]);
        let first = environment.unowned.first().expect("there");
        assert_eq!(environment.source(first), directory.join("pkg/a.py"));
        assert!(add_sources(&mut environment, &fixture.beside("nothing")).is_err());
    }
}
