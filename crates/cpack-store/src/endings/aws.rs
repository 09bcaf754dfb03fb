//! The little of AWS's files that says when a session ends. Pure functions.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The value of `key` in the section of `profile`, of a `credentials` file or a `config` file.
pub(super) fn value<'a>(text: &'a str, profile: &str, key: &str) -> Option<&'a str> {
    let mut inside = false;
    text.lines().map(str::trim).find_map(|line| {
        if let Some(section) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            inside = section.trim().strip_prefix("profile ").unwrap_or(section).trim() == profile;
        }
        let (name, value) = line.split_once('=')?;
        (inside && name.trim() == key).then_some(value.trim())
    })
}

/// The end of a login that is kept in `sso/cache`. None if the client renews it by itself.
pub(super) fn login_end(json: &[u8]) -> Option<u64> {
    let login: serde_json::Value = serde_json::from_slice(json).ok()?;
    if login.get("refreshToken").is_some() {
        return None;
    }
    time(login.get("expiresAt")?.as_str()?)
}

/// Seconds since 1970 of a time as RFC 3339 writes it, or as tools of AWS do: with a space, `UTC`, or no zone, which means UTC.
pub(super) fn time(text: &str) -> Option<u64> {
    let (date, time) = text.split_once(['T', ' '])?;
    let time = time.trim_end_matches("UTC");
    let zone = if time.contains(['Z', '+', '-']) { "" } else { "Z" };
    let parsed = OffsetDateTime::parse(&format!("{date}T{time}{zone}"), &Rfc3339).ok()?;
    u64::try_from(parsed.unix_timestamp()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_read_as_tools_write_it() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2024-02-29T12:00:00Z", Some(1_709_208_000)),
            ("2024-02-29T12:00:00.123Z", Some(1_709_208_000)),
            ("2024-02-29 12:00:00", Some(1_709_208_000)),
            ("2024-02-29T12:00:00UTC", Some(1_709_208_000)),
            ("2024-02-29T14:30:00+02:30", Some(1_709_208_000)),
            ("2024-02-29T07:00:00-05:00", Some(1_709_208_000)),
            ("2024-02-29", None),
            ("2024-02-29T12:00:00?", None),
            ("not a time at all, but long", None),
        ] {
            assert_eq!(time(text), seconds, "{text}");
        }
    }

    #[test]
    fn value_is_that_of_the_profile() {
        let text = "[default]\nexpiration = 1\n# [work]\n[profile work]\nexpiration=2\n[other]\nexpiration = 3\n";
        for (profile, found) in [("default", Some("1")), ("work", Some("2")), ("other", Some("3")), ("none", None)] {
            assert_eq!(value(text, profile, "expiration"), found);
        }
    }

    #[test]
    fn login_that_renews_itself_has_no_end() {
        let cached = br#"{"accessToken": "a", "expiresAt": "1970-01-02T00:00:00Z"}"#;
        assert_eq!(login_end(cached), Some(86400));
        assert_eq!(login_end(br#"{"refreshToken": "r", "expiresAt": "1970-01-02T00:00:00Z"}"#), None);
        assert_eq!(login_end(b"{"), None);
    }
}
