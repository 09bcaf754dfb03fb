//! When the credentials of a store end: Kerberos tickets, Hadoop's delegation tokens, sessions of AWS. For `doctor` of both programs.
//!
//! Only files and variables of this machine are read, and only times are shown. What says nothing of its end gets no line.

mod aws;
mod hadoop;

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cpack_format::check::Check;
use cpack_format::exit::Exit;
use cpack_format::human::lasting;
use sha1::{Digest as _, Sha1};

use crate::uri::Scheme;

/// What lasts shorter may end before an upload, or the start of a job, does.
const SHORT: Duration = Duration::from_secs(3600);

/// Something that ends.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ending {
    /// What ends, with the path that it was read from.
    what: String,
    /// Seconds since 1970.
    at: u64,
    /// How to renew it.
    renew: &'static str,
}

/// Whose credentials are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// A person, who may have a ticket.
    Person,
    /// A container, which has tokens alone.
    Container,
}

/// What is known of the credentials for a store of this kind, which answers if `works`.
pub fn credentials(scheme: Scheme, holder: Holder, works: bool) -> Vec<Check> {
    let found = match scheme {
        Scheme::Hdfs | Scheme::ViewFs => [ticket().filter(|_| holder == Holder::Person), tokens()],
        Scheme::S3 => [session(), None],
        _ => [None, None],
    };
    found.iter().flatten().map(|ending| check(ending, works, SystemTime::now())).collect()
}

/// A variable of this process that is not empty.
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

fn check(ending: &Ending, works: bool, now: SystemTime) -> Check {
    let at = UNIX_EPOCH + Duration::from_secs(ending.at);
    let what = &ending.what;
    match at.duration_since(now) {
        Ok(left) if left > SHORT => Check::good("credentials", format!("{what}: another {}", lasting(left))),
        Ok(left) => Check::note("credentials", format!("{what}: {} left", lasting(left)), ending.renew),
        Err(over) => {
            let found = format!("{what}: ended {} ago", lasting(over.duration()));
            // The store may take others.
            if works {
                Check::note("credentials", found, ending.renew)
            } else {
                Check::bad("credentials", Exit::Denied, found, ending.renew)
            }
        }
    }
}

/// The ticket in Kerberos's cache, if that is a file.
fn ticket() -> Option<Ending> {
    let named = variable("KRB5CCNAME").and_then(|name| name.into_string().ok());
    let uid = fs::metadata("/proc/self").map(|own| std::os::unix::fs::MetadataExt::uid(&own)).ok()?;
    let path = named.unwrap_or_else(|| format!("/tmp/krb5cc_{uid}"));
    let path = path.strip_prefix("FILE:").unwrap_or(&path);
    let at = hadoop::ticket_end(&fs::read(path).ok()?)?;
    Some(Ending { what: format!("the Kerberos ticket in {path}"), at, renew: "renew it: kinit" })
}

/// The delegation tokens that YARN hands to a container.
fn tokens() -> Option<Ending> {
    let path = PathBuf::from(variable("HADOOP_TOKEN_FILE_LOCATION")?);
    let at = hadoop::tokens_end(&fs::read(&path).ok()?)?;
    Some(Ending { what: format!("the delegation token in {}", path.display()), at, renew: "submit again for new ones" })
}

/// A session of AWS: that of the environment, of the profile, or of its single sign-on.
fn session() -> Option<Ending> {
    let text = |name: &str| variable(name).and_then(|value| value.into_string().ok());
    if text("AWS_ACCESS_KEY_ID").is_some() {
        let at = aws::time(&text("AWS_CREDENTIAL_EXPIRATION")?)?;
        return Some(Ending { what: "the AWS session of this shell".into(), at, renew: "get new variables" });
    }
    let home = PathBuf::from(variable("HOME")?).join(".aws");
    let file = |name: &str, usual: &str| {
        let path = variable(name).map_or_else(|| home.join(usual), PathBuf::from);
        fs::read_to_string(path).unwrap_or_default()
    };
    let files = [file("AWS_SHARED_CREDENTIALS_FILE", "credentials"), file("AWS_CONFIG_FILE", "config")];
    let profile = text("AWS_PROFILE").unwrap_or_else(|| "default".into());
    let value = |key: &str| files.iter().find_map(|text| aws::value(text, &profile, key));
    let ends = ["x_security_token_expires", "aws_expiration", "expiration"];
    if let Some(at) = ends.iter().find_map(|key| aws::time(value(key)?)) {
        return Some(Ending { what: format!("the AWS session of the profile {profile}"), at, renew: "log in again" });
    }
    let login = value("sso_session").or_else(|| value("sso_start_url"))?;
    let name: String = Sha1::digest(login).iter().map(|byte| format!("{byte:02x}")).collect();
    let cached = fs::read(home.join("sso/cache").join(format!("{name}.json"))).ok()?;
    let at = aws::login_end(&cached)?;
    Some(Ending { what: format!("the single sign-on of the profile {profile}"), at, renew: "aws sso login" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use cpack_format::check::Verdict;

    #[test]
    fn what_ends_soon_is_noted_and_what_ended_is_bad_unless_the_store_answers() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let ending = |at: u64| Ending { what: "the ticket".into(), at, renew: "kinit" };
        for (at, works, verdict, found) in [
            (1_000_000 + 9 * 3600, true, Verdict::Good, "the ticket: another 9 h"),
            (1_000_000 + 1800, true, Verdict::Note, "the ticket: 30 min left"),
            (1_000_000 - 86400 * 3, true, Verdict::Note, "the ticket: ended 3 days ago"),
            (1_000_000 - 60, false, Verdict::Bad(Exit::Denied), "the ticket: ended 60 s ago"),
        ] {
            let check = check(&ending(at), works, now);
            assert_eq!((check.verdict, check.found.as_str()), (verdict, found));
        }
    }
}
