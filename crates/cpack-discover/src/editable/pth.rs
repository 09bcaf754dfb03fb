//! Parses `.pth` files: each line is a folder for `sys.path`, or code (see Python's `site`).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// The effects of a `.pth` file that are visible without running it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PthFile {
    /// Absolute folders for `sys.path`.
    pub(super) folders: Vec<PathBuf>,
    /// Modules that its code imports first.
    pub(super) imports: Vec<String>,
}

impl PthFile {
    /// Parses a `.pth` file of the folder `site`.
    pub(super) fn parse(bytes: &[u8], site: &Path) -> Self {
        let mut file = Self::default();
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        for line in bytes.split(|b| *b == b'\n').map(<[u8]>::trim_ascii) {
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            match line.strip_prefix(b"import ").or(line.strip_prefix(b"import\t")) {
                None => file.folders.push(site.join(OsStr::from_bytes(line))),
                Some(code) => {
                    let names = String::from_utf8_lossy(code);
                    let names = names.split(';').next().unwrap_or_default();
                    file.imports.extend(names.split(',').map(|name| name.trim().to_owned()));
                }
            }
        }
        file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pth_file_has_folders_and_imports() {
        let text = b"\xef\xbb\xbf# c\n/home/me/src \r\n\n./old-1.egg\nimport a, b; a.install()\nimport\tc\nimportant\n";
        let expected = PthFile {
            folders: ["/home/me/src", "/s/./old-1.egg", "/s/important"].map(PathBuf::from).to_vec(),
            imports: ["a", "b", "c"].map(str::to_owned).to_vec(),
        };
        assert_eq!(PthFile::parse(text, Path::new("/s")), expected);
    }
}
