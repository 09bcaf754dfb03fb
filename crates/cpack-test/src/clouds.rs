//! Servers that stand for clouds: fake-gcs-server from Go's module proxy, and Microsoft's Azurite from npm.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cpack_store::{StoreOptions, StoreUri};

use crate::process::Server;
use crate::seaweed::short;
use crate::{cached, free_port, run};

const GCS_VERSION: &str = "1.56.1";
const AZURITE_VERSION: &str = "3.35.0";

pub(crate) const INSTALL_GO: &str = "Go of 1.21 or later (Debian: golang-go), with access to its module proxy";
const INSTALL_NPM: &str = "Node.js and npm (Debian: npm), with access to npm's registry";

/// The bucket and the container that exist.
pub const BUCKET: &str = "tests";

/// The account of Azurite, and its key: not the one that Azurite has by itself, which is in the executables for
/// `UseDevelopmentStorage=true`.
pub const ACCOUNT: &str = "devstoreaccount1";
pub const ACCOUNT_KEY: &str =
    "Y2x1c3Rlci1wYWNrOiB0aGUga2V5IG9mIGFuIGFjY291bnQgb2YgQXp1cml0ZSBpbiB0ZXN0cywgNjQgYnl0ZQ==";

/// A running server with an empty bucket.
#[derive(Debug)]
pub struct Cloud {
    pub port: u16,
    kind: Kind,
    _server: Server,
    _directory: tempfile::TempDir,
}

/// Which cloud a server stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Google,
    Azure,
}

impl Cloud {
    /// Starts a server and waits until it answers.
    pub fn start(kind: Kind) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let port = free_port();
        let mut command = match kind {
            Kind::Google => google(port),
            Kind::Azure => azure(port),
        };
        let log = directory.path().join("log");
        let file = File::create(&log).expect("a log");
        command.current_dir(directory.path()).stdin(Stdio::null());
        command.stdout(file.try_clone().expect("a log")).stderr(file);
        let mut server = Server::start(&mut command, if kind == Kind::Google { INSTALL_GO } else { INSTALL_NPM });
        wait_for(&mut server, port, &log);
        make_bucket(kind, port);
        Self { port, kind, _server: server, _directory: directory }
    }

    /// The variables of a client that connects to `port`.
    pub fn variables(&self, port: u16) -> Vec<(&'static str, String)> {
        match self.kind {
            Kind::Google => vec![("STORAGE_EMULATOR_HOST", format!("http://127.0.0.1:{port}"))],
            Kind::Azure => vec![(
                "AZURE_STORAGE_CONNECTION_STRING",
                format!(
                    "AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};BlobEndpoint=http://127.0.0.1:{port}/{ACCOUNT};"
                ),
            )],
        }
    }

    /// What a cluster gives to its containers: who they are, not where things are.
    pub fn credentials(&self) -> Vec<(&'static str, String)> {
        match self.kind {
            Kind::Google => Vec::new(),
            Kind::Azure => vec![("AZURE_STORAGE_KEY", ACCOUNT_KEY.to_owned())],
        }
    }

    /// The options of a client that connects to `port`.
    pub fn options(&self, port: u16) -> StoreOptions {
        options(&self.variables(port))
    }

    /// The URI of a store in the bucket.
    pub fn uri(&self, prefix: &str) -> StoreUri {
        let start = match self.kind {
            Kind::Google => format!("gs://{BUCKET}"),
            Kind::Azure => format!("abfss://{BUCKET}@{ACCOUNT}.dfs.core.windows.net"),
        };
        format!("{start}/{prefix}").parse().expect("a URI")
    }
}

/// Options of a client with these variables and the deadlines of [`short`].
pub fn options(variables: &[(&'static str, String)]) -> StoreOptions {
    let find = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.clone());
    StoreOptions { deadlines: short(), ..StoreOptions::new(BTreeMap::new(), find) }
}

/// An account's shared access signature for everything that ends at `expiry`, as `2020-01-01T00:00:00Z`.
pub fn shared_access(expiry: &str) -> String {
    const SIGN: &str = "
import base64, hashlib, hmac, sys, urllib.parse
account, key, expiry = sys.argv[1:]
version, rights = '2021-06-08', 'rwdlacup'
text = '\\n'.join([account, rights, 'b', 'sco', '', expiry, '', '', version, '', ''])
signature = base64.b64encode(hmac.new(base64.b64decode(key), text.encode(), hashlib.sha256).digest())
print(urllib.parse.urlencode(dict(sv=version, ss='b', srt='sco', sp=rights, se=expiry, sig=signature)), end='')";
    let output = Command::new("python3").args(["-c", SIGN, ACCOUNT, ACCOUNT_KEY, expiry]).output().expect("python3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn google(port: u16) -> Command {
    let place = cached(&format!("fake-gcs-server-{GCS_VERSION}"), |place| {
        let mut command = Command::new("go");
        command.arg("install").arg(format!("github.com/fsouza/fake-gcs-server@v{GCS_VERSION}")).env("GOBIN", place);
        run(&mut command, INSTALL_GO);
    });
    let mut command = Command::new(place.join("fake-gcs-server"));
    command.args(["-scheme=http", "-host=127.0.0.1", "-backend=memory", "-log-level=error"]);
    command.arg(format!("-port={port}"));
    command
}

fn azure(port: u16) -> Command {
    let place = cached(&format!("azurite-{AZURITE_VERSION}"), |place| {
        let mut command = Command::new("npm");
        command.args(["install", "--no-audit", "--no-fund", "--loglevel=error"]);
        command.arg("--prefix").arg(place).arg(format!("azurite@{AZURITE_VERSION}"));
        run(&mut command, INSTALL_NPM);
    });
    let mut command = Command::new("node");
    command.arg(place.join("node_modules/azurite/dist/src/blob/main.js"));
    command.args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string(), "--inMemoryPersistence", "--silent"]);
    command.args(["--skipApiVersionCheck", "--disableTelemetry"]);
    command.env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{ACCOUNT_KEY}"));
    command
}

/// Makes the bucket by one request.
fn make_bucket(kind: Kind, port: u16) {
    let (line, body) = match kind {
        Kind::Google => ("POST /storage/v1/b?project=tests".to_owned(), format!(r#"{{"name":"{BUCKET}"}}"#)),
        Kind::Azure => {
            let token = shared_access("2100-01-01T00:00:00Z");
            (format!("PUT /{ACCOUNT}/{BUCKET}?restype=container&{token}"), String::new())
        }
    };
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connects");
    let headers = "Host: 127.0.0.1\r\nConnection: close\r\nContent-Type: application/json\r\nx-ms-version: 2021-06-08";
    write!(stream, "{line} HTTP/1.1\r\n{headers}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).expect("sends");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 20"), "no bucket is made: {answer}");
}

/// Waits until `server` listens on `port`.
pub(crate) fn wait_for(server: &mut Server, port: u16, log: &Path) {
    let start = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        let late = !server.is_alive() || start.elapsed() > Duration::from_secs(60);
        assert!(!late, "a server does not start: {}", fs::read_to_string(log).unwrap_or_default());
        std::thread::sleep(Duration::from_millis(50));
    }
}
