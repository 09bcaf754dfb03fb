//! `cluster-pack skein spec`: an application as `skein application submit` reads it.
//!
//! JSON, which is YAML too. Files are named by the URI of their immutable copies, visible to the user: a node fetches the
//! launcher once, and YARN never finds that its source changed.

use serde_json::json;

use super::CommandError;
use super::context::Context;
use super::made::NAME;
use crate::cli::arguments::SkeinSpec;

/// Prints the application.
pub(super) fn spec(context: &Context, arguments: &SkeinSpec) -> Result<(), CommandError> {
    let made = context.made(&arguments.job)?;
    let shipped = context.shipped(&made)?;
    let visibility = if shipped.remote.is_some() { "private" } else { "application" };
    let source = shipped.remote.clone().unwrap_or_else(|| shipped.local_uri());
    let words = std::iter::once(format!("./{NAME}")).chain(arguments.arguments.iter().map(|word| quoted(word)));
    // The container's own process, so that a kill reaches Python.
    let script = format!("exec {}\n", words.collect::<Vec<_>>().join(" "));
    let application = json!({
        "name": made.job.name,
        "queue": arguments.queue,
        "file_systems": arguments.file_system,
        "services": { "main": {
            "instances": arguments.instances,
            "resources": { "vcores": arguments.vcores, "memory": arguments.memory },
            "files": { NAME: { "source": source, "type": "file", "visibility": visibility } },
            "script": script,
        } },
    });
    context.voice.answer(serde_json::to_string_pretty(&application).unwrap_or_default(), &application);
    Ok(())
}

/// A word of a shell's command line.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_shell() {
        for word in ["a", "", "a b", "it's", "$HOME", "a;b", "*"] {
            let script = format!("printf %s {}", quoted(word));
            let output = std::process::Command::new("sh").args(["-c", &script]).output().expect("a shell");
            assert_eq!(String::from_utf8_lossy(&output.stdout), word);
        }
    }
}
