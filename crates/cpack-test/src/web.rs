//! A web server for a directory: Go's `net/http`, built from `web/main.go`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::clouds::wait_for;
use crate::process::Server;
use crate::seaweed::certify;
use crate::{cached, free_port, run};

/// The name of the cached directory. Raise its number when `web/main.go` changes.
const NAME: &str = "go-web-1";
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/web/main.go");

/// A running server.
#[derive(Debug)]
pub struct WebServer {
    pub port: u16,
    /// Of the server with TLS, self-signed.
    pub certificate: PathBuf,
    _server: Server,
    directory: tempfile::TempDir,
}

/// How a server differs from one that gives every file to every client.
#[derive(Debug, Default, Clone, Copy)]
pub struct Web<'a> {
    pub tls: bool,
    /// A header without which nothing is served, `NAME: VALUE`.
    pub want: Option<&'a str>,
}

impl WebServer {
    /// Serves `directory`.
    pub fn start(served: &Path, web: Web<'_>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        let port = free_port();
        let mut command = Command::new(binary());
        command.arg(format!("-address=127.0.0.1:{port}")).arg(format!("-directory={}", served.display()));
        if web.tls {
            certify(&path("key.pem"), &path("certificate.pem"));
            command.arg(format!("-certificate={}", path("certificate.pem").display()));
            command.arg(format!("-key={}", path("key.pem").display()));
        }
        if let Some(want) = web.want {
            command.arg(format!("-want={want}"));
        }
        let log = File::create(path("log")).expect("a log");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        let mut server = Server::start(&mut command, "Go");
        wait_for(&mut server, port, &path("log"));
        Self { port, certificate: path("certificate.pem"), _server: server, directory }
    }

    /// A file of headers for `CPACK_HTTP_HEADER_FILE`.
    pub fn header_file(&self, header: &str) -> PathBuf {
        let path = self.directory.path().join("headers");
        std::fs::write(&path, header).expect("writes");
        path
    }
}

fn binary() -> PathBuf {
    let place = cached(NAME, |place| {
        let mut command = Command::new("go");
        command.arg("build").arg("-o").arg(place.join("web")).arg(SOURCE);
        run(&mut command, crate::clouds::INSTALL_GO);
    });
    place.join("web")
}
