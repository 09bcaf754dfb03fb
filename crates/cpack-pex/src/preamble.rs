//! Code that `pex --preamble-file` puts before a PEX's own start, into `__main__.py` between its first line and the runtime's
//! text. No other trace of it is left in a PEX.

/// How the text of upstream's runtime begins: since 2.5, and from 2.1.50 on.
const BEGINNINGS: [&str; 2] =
    ["# Copyright 2014 Pex project contributors.\n", "import os\nimport sys\n\n\n__INSTALLED_FROM__"];

/// Whether a `__main__.py` has a preamble. One whose text is not upstream's has none as far as is known.
pub(super) fn has_preamble(main: &[u8]) -> bool {
    let text = String::from_utf8_lossy(main);
    let Some((_, rest)) = text.split_once('\n') else { return false };
    // A directory made with `--sh-boot` has a script for `sh` there, in a string.
    let script = rest.strip_prefix("''''").and_then(|script| script.split_once("\n'''\n"));
    let rest = script.map_or(rest, |(_, rest)| rest);
    // The preamble may begin like the runtime, which comes last.
    let at = BEGINNINGS.iter().find_map(|beginning| rest.rfind(beginning));
    at.and_then(|at| rest.get(..at)).is_some_and(|before| !before.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preambles_of_all_releases_are_found() {
        for beginning in BEGINNINGS {
            for (preamble, expected) in [
                ("", false),
                ("\n\n", false),
                ("import os", true),
                ("\nprint('x')\n", true),
                ("import os\nimport sys\n\n\n__INSTALLED_FROM__ = 1\n", true),
                ("# a comment", true),
            ] {
                for head in ["#!/usr/bin/env python3.11\n", "#!/bin/sh\n'''': pshprs\nset -eu\nexit 1\n'''\n"] {
                    let main = format!("{head}{preamble}\n{beginning} rest of it\n");
                    assert_eq!(has_preamble(main.as_bytes()), expected, "{main}");
                }
            }
        }
        for other in ["", "#!python\n", "#!python\nimport own\n"] {
            assert!(!has_preamble(other.as_bytes()), "{other}");
        }
    }
}
