//! The quick start of the README gives what the README shows.

use std::fmt::Write as _;

use cpack_test::programs::{World, boot, cluster_pack, text, usual_interpreter, utf8};

/// The lines of the first block that is a terminal's.
fn shown() -> Vec<&'static str> {
    let block = include_str!("../../README.md").split("```console\n").nth(1).and_then(|rest| rest.split("```").next());
    block.expect("a block").lines().collect()
}

/// The text without what differs from machine to machine: numbers with their units.
fn masked(text: &str) -> String {
    let mut masked = String::new();
    for word in text.split_inclusive([' ', '\n', '(', ')', ',']) {
        let (body, end) = word.split_at(word.trim_end_matches([' ', '\n', '(', ')', ',']).len());
        match body {
            "B" | "KiB" | "MiB" => masked.push_str("UNIT"),
            number if number.parse::<f64>().is_ok() => masked.push('N'),
            other => masked.push_str(other),
        }
        masked.push_str(end);
    }
    masked
}

#[test]
fn quick_start_prints_what_the_readme_shows() {
    let world = World::new();
    let home = world.path("project");
    std::fs::create_dir(&home).expect("creates");
    let bin = world.path("bin");
    std::fs::create_dir(&bin).expect("creates");
    for (name, program) in [("cluster-pack", cluster_pack()), ("cpack-boot", boot()), ("python3", &usual_interpreter())]
    {
        std::os::unix::fs::symlink(program, bin.join(name)).expect("links");
    }
    let mut script = String::from("set -e\nexec 2>&1\n");
    for command in shown().iter().filter_map(|line| line.strip_prefix("$ ")) {
        let _ = writeln!(script, "cat <<'END'\n$ {command}\nEND\n{command}");
    }
    let mut command = world.command("sh");
    command.env("PATH", format!("{}:/usr/bin:/bin", bin.display())).env("PIP_DISABLE_PIP_VERSION_CHECK", "1");
    let output = command.args(["-c", &script]).current_dir(&home).output().expect("runs");
    let said = text(&output.stdout).replace(utf8(&home), "/home/me/project");
    assert!(output.status.success(), "{said}");
    assert_eq!(masked(&said), masked(&(shown().join("\n") + "\n")));
}
