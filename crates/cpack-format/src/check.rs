//! What `doctor` of both programs finds: one line each for people, a document for programs, an exit code.

use serde_json::{Value, json};

use crate::exit::Exit;

/// How one thing stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is as it should be.
    Good,
    /// It works, but a person may want to know.
    Note,
    /// A start or a submission would end with this code.
    Bad(Exit),
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was looked at, in a word or two.
    pub subject: &'static str,
    /// How it stands.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it; empty if there is nothing to do, or if `found` says it.
    pub advice: &'static str,
}

impl Check {
    /// A thing that is as it should be.
    pub fn good(subject: &'static str, found: impl Into<String>) -> Self {
        Self { subject, verdict: Verdict::Good, found: found.into(), advice: "" }
    }

    /// A thing that works, and that a person may want to know.
    pub fn note(subject: &'static str, found: impl Into<String>, advice: &'static str) -> Self {
        Self { subject, verdict: Verdict::Note, found: found.into(), advice }
    }

    /// A thing that would end a start or a submission with `exit`.
    pub fn bad(subject: &'static str, exit: Exit, found: impl Into<String>, advice: &'static str) -> Self {
        Self { subject, verdict: Verdict::Bad(exit), found: found.into(), advice }
    }

    fn line(&self, width: usize) -> String {
        let mark = match self.verdict {
            Verdict::Good => '✓',
            Verdict::Note => '!',
            Verdict::Bad(_) => '✗',
        };
        let advice = if self.advice.is_empty() { String::new() } else { format!("; {}", self.advice) };
        format!("{mark} {:<width$}  {}{advice}\n", self.subject, self.found)
    }
}

/// One line for each check.
pub fn text(checks: &[Check]) -> String {
    let width = checks.iter().map(|check| check.subject.chars().count()).max().unwrap_or(0);
    checks.iter().map(|check| check.line(width)).collect()
}

/// The checks as a document, whose `exit` is [`exit`].
pub fn document(checks: &[Check]) -> Value {
    let verdict = |check: &Check| match check.verdict {
        Verdict::Good => ("good", Value::Null),
        Verdict::Note => ("note", Value::Null),
        Verdict::Bad(exit) => ("bad", exit.code().into()),
    };
    let checks = checks.iter().map(|check| {
        let (verdict, exit) = verdict(check);
        json!({ "subject": check.subject, "verdict": verdict, "found": check.found, "advice": check.advice, "exit": exit })
    });
    let checks: Vec<Value> = checks.collect();
    json!({ "checks": checks })
}

/// 0, or the code of the first thing that is wrong.
pub fn exit(checks: &[Check]) -> u8 {
    let bad = checks.iter().find_map(|check| match check.verdict {
        Verdict::Bad(exit) => Some(exit.code()),
        Verdict::Good | Verdict::Note => None,
    });
    bad.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_lines_and_the_first_that_is_bad_gives_the_code() {
        let good = [Check::good("store", "file:/s answers"), Check::note("glibc", "unknown", "none is needed")];
        assert_eq!(text(&good), "✓ store  file:/s answers\n! glibc  unknown; none is needed\n");
        assert_eq!(exit(&good), 0);
        let bad = [Check::good("job", "x"), Check::bad("store", Exit::Unavailable, "no answer", "look at the network")];
        assert_eq!(exit(&bad), Exit::Unavailable.code());
        let code = document(&bad).pointer("/checks/1/exit").and_then(Value::as_u64);
        assert_eq!(code, Some(Exit::Unavailable.code().into()));
    }
}
