//! `--cpack doctor`: what a start would need, before it is needed.

use std::fs;
use std::process::Command;

use cpack_format::exit::Exit;
use cpack_format::job::Job;
use cpack_test::small_world::{World, entries, succeed};

/// The lines of the report, and the exit code.
fn doctor(command: &mut Command) -> (Vec<String>, i32) {
    let output = command.output().expect("starts");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    (text.lines().map(str::to_owned).collect(), output.status.code().expect("a code"))
}

/// The line about `subject`.
fn line<'a>(lines: &'a [String], subject: &str) -> &'a str {
    let mut found =
        lines.iter().filter(|line| line[line.find(' ').expect("a mark")..].trim_start().starts_with(subject));
    found.next().expect(subject)
}

#[test]
fn doctor_finds_nothing_wrong_where_a_start_succeeds() {
    let world = World::new(crate::boot());
    let (lines, code) = doctor(&mut world.command(&["--cpack", "doctor"]));
    assert_eq!(code, 0, "{lines:?}");
    for subject in ["job", "store", "interpreter", "glibc", "node cache"] {
        assert!(line(&lines, subject).starts_with('✓'), "{lines:?}");
    }
    assert!(line(&lines, "environment").contains("not on this node yet"), "{lines:?}");
    assert!(entries(&world.path("cache")).is_empty(), "nothing was made");
    world.run(&["-c", ""]);
    let (lines, code) = doctor(&mut world.command(&["--cpack", "doctor"]));
    assert!(code == 0 && line(&lines, "environment").starts_with("✓ environment"), "{lines:?}");
}

#[test]
fn doctor_ends_with_the_code_that_a_start_would_end_with() {
    let world = World::new(crate::boot());
    let layer = world.manifest.layers.first().expect("a layer");
    fs::remove_file(world.path("store").join(layer.key().as_str())).expect("removes");
    let (lines, code) = doctor(&mut world.command(&["--cpack", "doctor"]));
    assert_eq!(code, i32::from(Exit::NotFound.code()), "{lines:?}");
    assert!(line(&lines, "store").contains("lacks 1 of"), "{lines:?}");

    let mut nowhere = world.command(&["--cpack", "doctor"]);
    let (lines, _) = doctor(nowhere.env("CPACK_PYTHON", "/nowhere/python3"));
    assert!(line(&lines, "interpreter").contains("/nowhere/python3"), "{lines:?}");
}

#[test]
fn doctor_names_variables_that_are_no_settings() {
    let world = World::new(crate::boot());
    let (lines, code) = doctor(world.command(&["--cpack", "doctor"]).env("CPACK_CACHEDIR", "/tmp"));
    assert!(code == 0 && line(&lines, "variable").starts_with("! variable"), "{lines:?}");
    let text = succeed(&mut world.command(&["--cpack", "doctor", "--json"]));
    let report: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let subjects = report["checks"].as_array().expect("checks").iter().map(|check| &check["subject"]);
    assert!(subjects.into_iter().any(|subject| subject == "store"), "{report}");
}

/// Hadoop's file of tokens, with one for HDFS that ends then, in seconds since 1970.
fn tokens(end: u64) -> Vec<u8> {
    let text = |text: &[u8]| [&[u8::try_from(text.len()).expect("short")], text].concat();
    // A number of six bytes.
    let time = |seconds: u64| [&[0x8a_u8], &(seconds * 1000).to_be_bytes()[2..]].concat();
    let identifier = [vec![0], text(b"me"), text(b"yarn"), text(b""), time(1_000_000_000), time(end)].concat();
    let token =
        [text(b"alias"), text(&identifier), text(b"password"), text(b"HDFS_DELEGATION_TOKEN"), text(b"host:8020")];
    [b"HDTS\0\x01".to_vec(), token.concat(), vec![0]].concat()
}

#[test]
fn doctor_tells_when_the_container_s_token_ends() {
    let world = World::new(crate::boot());
    let job = Job { store: "hdfs:///nowhere".into(), ..world.job.clone() };
    let launcher = world.write_launcher("hdfs", &job);
    let file = world.path("work/container_tokens");
    for (end, mark, said) in [(1_700_000_000, '✗', "ended "), (9_000_000_000, '✓', "another ")] {
        fs::write(&file, tokens(end)).expect("writes");
        let mut command = world.command_of(&launcher, &["--cpack", "doctor"]);
        let (lines, code) = doctor(command.env("HADOOP_TOKEN_FILE_LOCATION", &file));
        let told = line(&lines, "credentials");
        let words = format!("the delegation token in {}: {said}", file.display());
        assert!(code != 0 && told.starts_with(mark) && told.contains(&words), "{lines:?}");
    }
}
