//! What a failed request tells, and what it means: a kind, and one line that says what to do.

use std::error::Error;
use std::time::Duration;

use crate::call::{MAX_MESSAGE, Verdict};
use crate::error::NO_OBJECT;
use crate::{StoreErrorKind, redact};

/// Clouds refuse requests from a clock that is off by more than this.
const MAX_SKEW: Duration = Duration::from_secs(15 * 60);

/// The reason for a web page where the store should be.
pub(crate) const WEB_PAGE: &str =
    "a web page came back instead of the store's answer: check the endpoint, and the proxy between";

/// The reason for an object that is too short.
pub(crate) const TOO_SHORT: &str = "it ends before the length that is expected";

/// What errors say of one kind of server, and its own codes.
#[derive(Debug)]
pub(crate) struct Server {
    /// The variable that names certificate authorities.
    pub(crate) bundle: &'static str,
    /// What to do without credentials.
    pub(crate) credentials: &'static str,
    /// What to check where access is denied.
    pub(crate) rights: &'static str,
    /// What an answer of this server means beyond its status.
    pub(crate) refused: fn(&Answer) -> Option<(StoreErrorKind, String)>,
}

/// What is known of a failed request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// HTTP status, `None` if there was no answer.
    pub(crate) status: Option<u16>,
    /// The server's error code, e.g. `NoSuchKey`.
    pub(crate) code: String,
    /// The message of the server, or of the client.
    pub(crate) message: String,
    /// Whether a web page came back. An answer without a body counts as none: moto, and proxies that drop bodies, call every
    /// answer `text/html`, and only its status tells what happened.
    pub(crate) html: bool,
    /// The bucket's region, where the server names it.
    pub(crate) region: Option<String>,
    /// How far the server's clock is from this machine's.
    pub(crate) skew: Duration,
    /// Why there was no answer.
    pub(crate) transport: Transport,
}

/// Why there was no answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Transport {
    /// There was an answer, or nothing better is known.
    #[default]
    Unknown,
    /// Refused, or no such host.
    Unreachable,
    /// A broken connection or a time-out.
    Broken,
    /// The server's certificate is not trusted.
    Untrusted,
    /// No credentials, or their provider failed.
    Credentials,
    /// The client could not build the request, and never sent it.
    Invalid,
}

impl Transport {
    /// What the messages of a client's errors say.
    pub(crate) fn said_by(text: &str) -> Option<Self> {
        let any = |needles: &[&str]| needles.iter().any(|needle| text.contains(needle));
        if any(&["onnection refused", "failed to lookup address", "dns error", "No route to host"]) {
            return Some(Self::Unreachable);
        }
        if any(&["InvalidCertificate", "invalid peer certificate", "UnknownIssuer"]) {
            return Some(Self::Untrusted);
        }
        None
    }
}

impl Answer {
    /// Why a request was not answered.
    pub(crate) fn none(transport: Transport, message: impl Into<String>) -> Self {
        Self { transport, message: message.into(), ..Self::default() }
    }

    pub(crate) fn verdict(&self, server: &Server) -> Verdict {
        let (kind, reason) = match self.status {
            None => self.without_answer(server),
            // Gateways answer 5xx with web pages. Those errors are transient.
            Some(status) if status >= 500 || status == 429 || status == 408 => self.busy(status),
            Some(_) if self.html => (StoreErrorKind::Misconfigured, WEB_PAGE.to_owned()),
            Some(status) => self.refused(status, server),
        };
        Verdict { kind, reason, unreachable: self.transport == Transport::Unreachable }
    }

    fn without_answer(&self, server: &Server) -> (StoreErrorKind, String) {
        let said = self.said();
        match self.transport {
            Transport::Unreachable => (
                StoreErrorKind::Transient,
                format!("nothing answers there: {said}: check the endpoint and that the server runs"),
            ),
            Transport::Untrusted => (
                StoreErrorKind::Misconfigured,
                format!("the server's certificate is not trusted: {said}: name its authority in {}", server.bundle),
            ),
            Transport::Credentials => {
                (StoreErrorKind::Denied, format!("no usable credentials: {said}: {}", server.credentials))
            }
            Transport::Invalid => (StoreErrorKind::Other, said),
            Transport::Broken | Transport::Unknown => (StoreErrorKind::Transient, said),
        }
    }

    fn busy(&self, status: u16) -> (StoreErrorKind, String) {
        let kind = match (status, self.code.as_str()) {
            (507, _) | (_, "QuotaExceeded" | "XMinioStorageFull") => StoreErrorKind::Full,
            (501, _) => StoreErrorKind::Misconfigured,
            _ => StoreErrorKind::Transient,
        };
        (kind, format!("the server answers {status}: {}", self.said()))
    }

    fn refused(&self, status: u16, server: &Server) -> (StoreErrorKind, String) {
        if let Some(known) = (server.refused)(self) {
            return known;
        }
        if status == 403 && self.skew > MAX_SKEW {
            return self.clock();
        }
        let said = self.said();
        match status {
            404 => (StoreErrorKind::NotFound, NO_OBJECT.to_owned()),
            409 | 412 => (StoreErrorKind::Transient, said),
            416 => (StoreErrorKind::Damaged, TOO_SHORT.to_owned()),
            405 => (StoreErrorKind::Misconfigured, format!("{said}: check the bucket's name and the endpoint")),
            401 | 403 => (StoreErrorKind::Denied, format!("access denied ({said}): check {}", server.rights)),
            _ => (StoreErrorKind::Other, format!("the server answers {status}: {said}")),
        }
    }

    /// The clocks differ too much.
    pub(crate) fn clock(&self) -> (StoreErrorKind, String) {
        let minutes = self.skew.as_secs() / 60;
        let reason = format!("this machine's clock is {minutes} minutes off the server's: set the clock");
        (StoreErrorKind::Misconfigured, reason)
    }

    /// The server's or client's message in one line, without secrets.
    pub(crate) fn said(&self) -> String {
        let text = without_proofs(&redact(&self.message));
        let text: String = text.chars().take(MAX_MESSAGE).collect();
        match (self.code.is_empty(), text.is_empty()) {
            (false, false) if !text.contains(&self.code) => format!("{}: {text}", self.code),
            (_, false) => text,
            (false, true) => self.code.clone(),
            (true, true) => "no reason given".to_owned(),
        }
    }
}

/// The words of `text` in one line, without signatures and tokens: servers repeat requests in their errors.
fn without_proofs(text: &str) -> String {
    let mut after_scheme = false;
    let words = text.split_whitespace().map(|word| {
        let lower = word.to_ascii_lowercase();
        let is_proof =
            after_scheme || ["sig=", "signature=", "token=", "credential="].iter().any(|mark| lower.contains(mark));
        after_scheme = ["bearer", "basic", "sharedkey", "sharedkeylite"].contains(&lower.trim_end_matches(':'));
        if is_proof { "***" } else { word }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// The messages of an error and all its causes, outermost first.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> Vec<String> {
    std::iter::successors(Some(error), |&error| error.source()).map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proofs_that_a_server_repeats_are_not_told() {
        for (message, said) in [
            ("PUT /c/x?se=1&sig=abc HTTP/1.1\nhost: h", "PUT *** HTTP/1.1 host: h"),
            ("authorization: SharedKey account:abc= x", "authorization: SharedKey *** x"),
            ("Authorization: Bearer abc", "Authorization: Bearer ***"),
            ("no signature was sent", "no signature was sent"),
        ] {
            assert_eq!(Answer::none(Transport::Broken, message).said(), said);
        }
    }
}
