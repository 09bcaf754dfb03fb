//! Reads which libraries, run paths and glibc ELF files need.
//!
//! Only headers, the dynamic segment and its strings are read, whatever the size of the file. Files are read only when their
//! distribution is packed anew; the caller keeps the result.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::path::{Path, PathBuf};

use cpack_format::SafePath;
use object::Endianness;
use object::elf::{self, FileHeader32, FileHeader64};
use object::read::elf::{Dyn as _, FileHeader, ProgramHeader as _};
use object::read::{ReadCache, ReadRef, StringTable};
use rayon::prelude::*;

use super::prefix_files::join_normalised;

/// The longest chain of version records that is followed. A library has one record for each library that it needs.
const MAX_RECORDS: usize = 1 << 16;

/// The needs of one ELF file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct ElfFacts {
    /// `DT_NEEDED`: names of libraries.
    needed: Vec<String>,
    /// `DT_RUNPATH`, else `DT_RPATH`, as written: `$ORIGIN/../lib`.
    run_paths: Vec<String>,
    /// The major and minor version of the newest glibc whose symbols it needs.
    glibc: Option<(u32, u32)>,
}

/// What the ELF files of a layer need from outside the layer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LayerNeeds {
    /// Sorted directories of the environment in which libraries outside the layer are looked for.
    pub run_paths: Vec<String>,
    /// The least glibc, e.g. `2.17`.
    pub glibc: Option<String>,
}

/// Reads the needs of a file. `None` if it is not an ELF file or is damaged.
fn read(path: &Path) -> io::Result<Option<ElfFacts>> {
    let mut file = File::open(path)?;
    let mut start = [0; 20];
    if let Err(error) = file.read_exact(&mut start) {
        return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(None) } else { Err(error) };
    }
    if !start.starts_with(&elf::ELFMAG) {
        return Ok(None);
    }
    file.rewind()?;
    let is_64 = start.get(4) == Some(&elf::ELFCLASS64.0);
    let cache = ReadCache::new(file);
    Ok(if is_64 { facts::<FileHeader64<Endianness>, _>(&cache) } else { facts::<FileHeader32<Endianness>, _>(&cache) })
}

fn facts<'data, H, R>(data: R) -> Option<ElfFacts>
where
    H: FileHeader<Endian = Endianness>,
    R: ReadRef<'data>,
{
    let header = H::parse(data).ok()?;
    let endian = header.endian().ok()?;
    let segments = header.program_headers(endian, data).ok()?;
    let dynamic = segments.iter().find_map(|segment| segment.dynamic(endian, data).ok().flatten());
    let Some(dynamic) = dynamic else { return Some(ElfFacts::default()) };
    let value = |tag| dynamic.iter().find(|entry| entry.tag(endian) == tag).map(|entry| entry.val(endian));
    let offset = |address: u64| {
        segments.iter().filter(|s| s.p_type(endian) == elf::PT_LOAD).find_map(|segment| {
            let (start, size) = (segment.p_vaddr(endian).into(), segment.p_filesz(endian).into());
            let within = address.checked_sub(start).filter(|within| *within < size)?;
            Some((segment.p_offset(endian).into() + within, size - within))
        })
    };
    let (strings, room) = offset(value(elf::DT_STRTAB)?)?;
    let length = value(elf::DT_STRSZ).map_or(room, Into::into).min(room);
    let strings = StringTable::new(data, strings, strings + length);
    let text = |at: u64| {
        let bytes = strings.get(u32::try_from(at).ok()?).ok()?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    };
    let texts = |tag| {
        let entries = dynamic.iter().filter(move |entry| entry.tag(endian) == tag);
        entries.filter_map(|entry| text(entry.val(endian))).collect::<Vec<_>>()
    };
    let run_paths = [texts(elf::DT_RUNPATH), texts(elf::DT_RPATH)].into_iter().find(|paths| !paths.is_empty());
    let run_paths = run_paths.unwrap_or_default();
    let run_paths = run_paths.iter().flat_map(|p| p.split(':')).filter(|p| !p.is_empty());
    let versions = value(elf::DT_VERNEED).and_then(offset);
    let versions = versions.map(|(at, _)| version_names(data, endian, at, &text)).unwrap_or_default();
    Some(ElfFacts {
        needed: texts(elf::DT_NEEDED),
        run_paths: run_paths.map(str::to_owned).collect(),
        glibc: versions.iter().filter_map(|name| glibc_version(name)).max(),
    })
}

/// The names of the symbol versions that a file needs. ELF has a list of libraries, each with a list of versions.
fn version_names<'data, R: ReadRef<'data>>(
    data: R,
    endian: Endianness,
    start: u64,
    text: &dyn Fn(u64) -> Option<String>,
) -> Vec<String> {
    let mut names = Vec::new();
    let mut library = start;
    for _ in 0..MAX_RECORDS {
        let Ok(record) = data.read_at::<elf::Verneed<Endianness>>(library) else { return names };
        let mut version = library.saturating_add(record.vn_aux.get(endian).into());
        for _ in 0..record.vn_cnt.get(endian) {
            let Ok(needed) = data.read_at::<elf::Vernaux<Endianness>>(version) else { return names };
            names.extend(text(needed.vna_name.get(endian).into()));
            if needed.vna_next.get(endian) == 0 {
                break;
            }
            version = version.saturating_add(needed.vna_next.get(endian).into());
        }
        if record.vn_next.get(endian) == 0 {
            break;
        }
        library = library.saturating_add(record.vn_next.get(endian).into());
    }
    names
}

/// Parses `GLIBC_2.17`. `None` for versions of other libraries.
fn glibc_version(name: &str) -> Option<(u32, u32)> {
    let version = match name.strip_prefix("GLIBC_")? {
        // Relative relocations, which glibc supports since 2.36.
        "ABI_DT_RELR" => return Some((2, 36)),
        version => version,
    };
    let mut parts = version.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??))
}

/// The directory of the environment that a run path of the file at `path` names. `None` if it is outside the environment or
/// does not start with `$ORIGIN`.
fn run_directory(path: &SafePath, run_path: &str) -> Option<SafePath> {
    let rest = run_path.strip_prefix("$ORIGIN").or(run_path.strip_prefix("${ORIGIN}"))?;
    if !rest.is_empty() && !rest.starts_with('/') {
        return None;
    }
    let folder = path.parent();
    let folder = folder.as_ref().map(SafePath::as_bytes).unwrap_or_default();
    SafePath::new(&join_normalised(folder, rest.as_bytes())?).ok()
}

/// The needs of a layer. Each file is a path, whether it is executable, and its path on disk. Files that are neither
/// executable nor named like shared libraries, and files that cannot be read, are ignored.
pub fn layer_needs<'a>(files: impl IntoIterator<Item = (&'a SafePath, bool, PathBuf)>) -> LayerNeeds {
    let candidates: Vec<(&SafePath, PathBuf)> = files
        .into_iter()
        .filter(|(path, executable, _)| *executable || is_library_name(path))
        .map(|(path, _, source)| (path, source))
        .collect();
    let read = |(path, source): &(&'a SafePath, PathBuf)| Some((*path, read(source).ok()??));
    let read: Vec<(&SafePath, ElfFacts)> = candidates.par_iter().filter_map(read).collect();
    let own: BTreeSet<&[u8]> = read.iter().map(|(path, _)| path.as_bytes()).collect();
    let mut run_paths = BTreeSet::new();
    for (path, facts) in &read {
        let folders: Vec<SafePath> =
            facts.run_paths.iter().filter_map(|run_path| run_directory(path, run_path)).collect();
        let has = |folder: &SafePath, library: &str| {
            let file = [folder.as_bytes(), b"/", library.as_bytes()].concat();
            own.contains(file.as_slice())
        };
        let is_own = |library: &String| folders.iter().any(|folder| has(folder, library));
        if !facts.needed.iter().all(is_own) {
            let within =
                |folder: &SafePath| own.iter().any(|o| o.strip_prefix(folder.as_bytes()).is_some_and(is_file_name));
            run_paths.extend(folders.iter().filter(|folder| !within(folder)).map(ToString::to_string));
        }
    }
    let glibc = read.iter().filter_map(|(_, facts)| facts.glibc).max();
    LayerNeeds {
        run_paths: run_paths.into_iter().collect(),
        glibc: glibc.map(|(major, minor)| format!("{major}.{minor}")),
    }
}

/// `/name`, without a further directory.
fn is_file_name(rest: &[u8]) -> bool {
    rest.strip_prefix(b"/").is_some_and(|name| !name.contains(&b'/'))
}

/// `x.so`, `x.so.1.2`, `x.cpython-311-x86_64-linux-gnu.so`.
fn is_library_name(path: &SafePath) -> bool {
    let name = path.components().next_back().unwrap_or_default();
    name.ends_with(b".so") || name.windows(4).any(|w| w == b".so.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::process::Command;

    #[test]
    fn run_directory_is_in_the_environment() {
        let path = SafePath::new(b"lib/site/torch/lib/libtorch.so").expect("safe");
        for (run_path, expected) in [
            ("$ORIGIN", Some("lib/site/torch/lib")),
            ("$ORIGIN/../../nvidia/cublas/lib", Some("lib/site/nvidia/cublas/lib")),
            ("${ORIGIN}/..", Some("lib/site/torch")),
            ("$ORIGIN/../../../../..", None),
            ("$ORIGINAL/x", None),
            ("/usr/lib", None),
        ] {
            let found = run_directory(&path, run_path).map(|p| p.to_string());
            assert_eq!(found.as_deref(), expected, "{run_path}");
        }
    }

    #[test]
    fn glibc_version_is_parsed() {
        for (name, version) in [
            ("GLIBC_2.17", Some((2, 17))),
            ("GLIBC_2.2.5", Some((2, 2))),
            ("GLIBC_PRIVATE", None),
            ("GLIBCXX_3.4", None),
            ("GLIBC_ABI_DT_RELR", Some((2, 36))),
        ] {
            assert_eq!(glibc_version(name), version, "{name}");
        }
    }

    /// Compiles a library and returns its path.
    fn compile(folder: &Path, name: &str, source: &str, flags: &[&str]) -> PathBuf {
        fs::create_dir_all(folder).expect("makes");
        fs::write(folder.join("x.c"), source).expect("writes");
        let output = folder.join(name);
        let mut command = Command::new("cc");
        command.args(["-shared", "-fPIC", "-x", "c"]).arg(folder.join("x.c")).args(["-x", "none", "-o"]).arg(&output);
        let status = command.args(flags).status().expect("these tests need a C compiler");
        assert!(status.success(), "{name} does not compile");
        fs::remove_file(folder.join("x.c")).expect("removes");
        output
    }

    #[test]
    fn layer_needs_directories_of_libraries_that_it_lacks() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        let base = compile(
            &root.join("s/other/lib"),
            "libbase.so.1",
            "int base(void) { return 1; }",
            &["-Wl,-soname,libbase.so.1"],
        );
        let help = compile(
            &root.join("s/mine/libs"),
            "libhelp.so",
            "int help(void) { return 2; }",
            &["-Wl,-soname,libhelp.so"],
        );
        let code =
            "#include <stdio.h>\nint base(void); int help(void); int f(void) { return base() + help() + puts(\"x\"); }";
        let all = [
            "-Wl,--enable-new-dtags,-rpath,$ORIGIN/libs:$ORIGIN/../other/lib:/opt/x",
            base.to_str().expect("text"),
            help.to_str().expect("text"),
        ];
        let main = compile(&root.join("s/mine"), "main.so", code, &all);
        let old = compile(
            &root.join("s/mine"),
            "old.so",
            "int help(void); int g(void) { return help(); }",
            &[
                "-Wl,--disable-new-dtags,-rpath,$ORIGIN/libs:$ORIGIN/../unused",
                "-nostdlib",
                help.to_str().expect("text"),
            ],
        );
        let facts = read(&main).expect("reads").expect("an ELF file");
        assert!(facts.needed.starts_with(&["libbase.so.1".into(), "libhelp.so".into()]), "{facts:?}");
        assert_eq!(facts.run_paths, ["$ORIGIN/libs", "$ORIGIN/../other/lib", "/opt/x"]);
        assert!(facts.glibc.is_some_and(|version| version >= (2, 2)), "{facts:?}");
        let facts = read(&old).expect("reads").expect("an ELF file");
        let expected = ["$ORIGIN/libs", "$ORIGIN/../unused"].map(str::to_owned).to_vec();
        assert_eq!(facts, ElfFacts { needed: vec!["libhelp.so".into()], run_paths: expected, glibc: None });

        fs::write(root.join("s/mine/fake.so"), "INPUT(libm.so)").expect("writes");
        fs::write(root.join("s/mine/short.so"), "\x7fELF").expect("writes");
        let damaged: Vec<u8> = fs::read(&main).expect("reads").into_iter().take(5000).collect();
        fs::write(root.join("s/mine/cut.so"), damaged).expect("writes");
        let names = [
            "s/mine/main.so",
            "s/mine/old.so",
            "s/mine/libs/libhelp.so",
            "s/mine/fake.so",
            "s/mine/short.so",
            "s/mine/cut.so",
        ];
        let paths = names.map(|name| SafePath::new(name.as_bytes()).expect("safe"));
        let needs = layer_needs(paths.iter().map(|path| (path, false, root.join(path))));
        assert_eq!(needs.run_paths, ["s/other/lib"]);
        assert!(needs.glibc.is_some_and(|version| version.starts_with("2.")));
    }

    #[test]
    fn layer_needs_of_executables_without_library_names() {
        let own = std::env::current_exe().expect("a path");
        let path = SafePath::new(b"bin/test").expect("safe");
        assert!(layer_needs([(&path, true, own.clone())]).glibc.is_some());
        assert_eq!(layer_needs([(&path, false, own)]), LayerNeeds::default());
    }
}
