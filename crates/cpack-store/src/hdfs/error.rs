//! Maps the HDFS client's errors to a kind and one line that says what to do.

use std::io;

use hdfs_native::HdfsError;

use crate::call::{MAX_MESSAGE, Verdict};
use crate::error::NO_OBJECT;
use crate::{StoreErrorKind, redact};

/// Whether the name node closes the connection on the client, as it does to refuse a client that does not say who it is.
pub(super) fn is_hang_up(error: &HdfsError) -> bool {
    matches!(error, HdfsError::IOError(e) if e.kind() == io::ErrorKind::ConnectionAborted || e.kind() == io::ErrorKind::ConnectionReset)
}

pub(super) fn verdict(error: &HdfsError) -> Verdict {
    use StoreErrorKind as Kind;
    let unreachable = matches!(error, HdfsError::IOError(e) if is_unreachable(e));
    let (kind, reason) = match error {
        HdfsError::RPCError(class, message) | HdfsError::FatalRPCError(class, message) => remote(class, message),
        HdfsError::FileNotFound(_) => (Kind::NotFound, NO_OBJECT.to_owned()),
        HdfsError::IOError(e) if unreachable => {
            (Kind::Transient, format!("no name node answers: {e}: check the address and that it runs"))
        }
        HdfsError::DataTransferError(message) if message.starts_with("All DataNodes failed") => {
            (Kind::Transient, "none of the data nodes that have it answers".to_owned())
        }
        // No token fits, so the client tried Kerberos. Its library cannot be loaded; a static program never can.
        HdfsError::OperationFailed(message) if message.contains("libgssapi") => (
            Kind::Denied,
            "no delegation token fits, and Kerberos is not there: check HADOOP_TOKEN_FILE_LOCATION".into(),
        ),
        HdfsError::IOError(_)
        | HdfsError::DataTransferError(_)
        | HdfsError::ChecksumError
        | HdfsError::BlocksNotFound(_)
        | HdfsError::OperationFailed(_)
        | HdfsError::InvalidRPCResponse(_)
        | HdfsError::InternalError(_) => (Kind::Transient, first_line(&error.to_string())),
        HdfsError::GSSAPIError(..) | HdfsError::NoSASLMechanism => (
            Kind::Denied,
            format!(
                "the cluster wants Kerberos or a delegation token ({}): run kinit, or check HADOOP_TOKEN_FILE_LOCATION",
                first_line(&error.to_string())
            ),
        ),
        HdfsError::SASLError(_) => (Kind::Denied, first_line(&error.to_string())),
        HdfsError::InvalidArgument(_) | HdfsError::UrlParseError(_) | HdfsError::XmlParseError(_) => {
            (Kind::Misconfigured, first_line(&error.to_string()))
        }
        other => (Kind::Other, first_line(&other.to_string())),
    };
    Verdict { kind, reason, unreachable }
}

/// What an exception of the name node means, by its Java class.
fn remote(class: &str, message: &str) -> (StoreErrorKind, String) {
    use StoreErrorKind as Kind;
    let name = class.rsplit(['.', '$']).next().unwrap_or(class);
    let said = first_line(message);
    match name {
        "FileNotFoundException" => (Kind::NotFound, NO_OBJECT.to_owned()),
        "AccessControlException" if message.contains("authentication is not enabled") => (
            Kind::Denied,
            format!(
                "the cluster wants Kerberos, and hadoop.security.authentication is not set ({said}): set HADOOP_CONF_DIR"
            ),
        ),
        "AccessControlException" | "AuthorizationException" | "SaslException" | "GSSException" => {
            (Kind::Denied, format!("permission denied: {said}"))
        }
        "InvalidToken" => {
            (Kind::Denied, format!("the delegation token has expired or was cancelled ({said}): submit again"))
        }
        "SafeModeException" => (Kind::Transient, "the name node is in safe mode".to_owned()),
        "StandbyException"
        | "RetriableException"
        | "ObserverRetryOnActiveException"
        | "ServerTooBusyException"
        | "LeaseExpiredException"
        | "NotReplicatedYetException"
        | "RecoveryInProgressException" => (Kind::Transient, said),
        name if name.ends_with("QuotaExceededException") => (Kind::Full, said),
        "IOException" if message.contains("could only be written to") => {
            (Kind::Transient, format!("no data node takes it, they are full or down: {said}"))
        }
        _ => (Kind::Other, format!("{name}: {said}")),
    }
}

/// Whether nothing listens there, or no resolver knows the name.
fn is_unreachable(error: &io::Error) -> bool {
    let kinds = [io::ErrorKind::ConnectionRefused, io::ErrorKind::HostUnreachable, io::ErrorKind::NetworkUnreachable];
    kinds.contains(&error.kind()) || error.to_string().contains("failed to lookup address")
}

/// The message without the stack trace that follows in Java's messages.
fn first_line(text: &str) -> String {
    redact(text.lines().next().unwrap_or_default()).chars().take(MAX_MESSAGE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rpc(class: &str, message: &str) -> HdfsError {
        HdfsError::RPCError(class.into(), message.into())
    }

    #[test]
    fn every_error_has_a_kind_and_says_what_to_do() {
        use StoreErrorKind as Kind;
        let denied = "Permission denied: user=me, access=WRITE\n\tat org.apache…";
        for (error, kind, needle) in [
            (rpc("java.io.FileNotFoundException", "x"), Kind::NotFound, "no such object"),
            (rpc("org.apache.hadoop.security.AccessControlException", denied), Kind::Denied, "user=me"),
            (
                rpc("org.apache.hadoop.security.AccessControlException", "SIMPLE authentication is not enabled."),
                Kind::Denied,
                "hadoop.security.authentication",
            ),
            (
                HdfsError::FatalRPCError(
                    "org.apache.hadoop.security.token.SecretManager$InvalidToken".into(),
                    "token is expired".into(),
                ),
                Kind::Denied,
                "submit again",
            ),
            (rpc("org.apache.hadoop.ipc.StandbyException", "standby"), Kind::Transient, "standby"),
            (rpc("org.apache.hadoop.hdfs.server.namenode.SafeModeException", "x"), Kind::Transient, "safe mode"),
            (rpc("org.apache.hadoop.hdfs.protocol.DSQuotaExceededException", "quota"), Kind::Full, "quota"),
            (
                rpc("java.io.IOException", "File /x could only be written to 0 of the 1"),
                Kind::Transient,
                "full or down",
            ),
            (rpc("java.io.IOException", "odd"), Kind::Other, "IOException: odd"),
            (HdfsError::NoSASLMechanism, Kind::Denied, "kinit"),
            (HdfsError::OperationFailed("Failed to load libgssapi_krb".into()), Kind::Denied, "delegation token"),
            (HdfsError::OperationFailed("odd".into()), Kind::Transient, "odd"),
            (HdfsError::ChecksumError, Kind::Transient, "checksum"),
            (HdfsError::InvalidArgument("odd".into()), Kind::Misconfigured, "odd"),
            (HdfsError::IOError(io::ErrorKind::ConnectionReset.into()), Kind::Transient, "reset"),
        ] {
            let verdict = verdict(&error);
            assert_eq!(verdict.kind, kind, "{error:?}");
            assert!(verdict.reason.contains(needle) && !verdict.reason.contains('\n'), "{verdict:?}");
            assert!(!verdict.unreachable);
        }
        assert!(verdict(&HdfsError::IOError(io::ErrorKind::ConnectionRefused.into())).unreachable);
    }
}
