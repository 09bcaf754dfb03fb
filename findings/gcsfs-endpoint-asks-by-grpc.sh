#!/usr/bin/env bash
# gcsfs 2026.10.1 asks by gRPC, with TLS, what kind of bucket it has before the first request to `endpoint_url`.
#
# An emulator or proxy that speaks plain HTTP cannot answer that. gcsfs tries for 60 seconds, warns, and goes on: each process that
# uses a bucket first stands still for a minute. GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT=false, read when gcsfs is imported, leaves it out.
#
# Seen with: CPython 3.11, gcsfs 2026.10.1.
# Output:    gcsfs 2026.10.1: first ls of a bucket at an HTTP endpoint takes over 30 s: True; without the question: False
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

python3 -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check gcsfs==2026.10.1
cat > ask.py <<'PY'
import http.server, json, threading, time

class Bucket(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        answer = json.dumps({"kind": "storage#objects", "items": [
            {"kind": "storage#object", "name": "a.txt", "bucket": "bucket", "size": "1", "generation": "1"},
        ]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
    def log_message(self, *args):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Bucket)
threading.Thread(target=server.serve_forever, daemon=True).start()
import gcsfs
files = gcsfs.GCSFileSystem(token="anon", endpoint_url=f"http://127.0.0.1:{server.server_port}")
start = time.monotonic()
assert files.ls("bucket") == ["bucket/a.txt"]
print(time.monotonic() - start > 30)
PY
asked=$(env/bin/python ask.py 2>/dev/null)
not_asked=$(GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT=false env/bin/python ask.py 2>/dev/null)

echo "gcsfs 2026.10.1: first ls of a bucket at an HTTP endpoint takes over 30 s: $asked; without the question: $not_asked"
[ "$asked, $not_asked" = "True, False" ]
