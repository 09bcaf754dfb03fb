#!/usr/bin/env bash
# fake-gcs-server 1.56.1 keeps ifGenerationMatch for uploads and ignores it for compose; PATCH leaves `updated` as it was.
#
# Google Cloud Storage refuses a compose with ifGenerationMatch=0 by 412 where the object exists, and counts a change of
# metadata as an update. A program that writes large objects as composed parts, once, or that tells an object's age by
# `updated`, behaves otherwise against this server.
#
# Seen with: Go 1.26, fake-gcs-server 1.56.1.
# Output:    fake-gcs-server 1.56.1, ifGenerationMatch=0 on what exists: upload 412, compose 200; updated after PATCH: same
set -euo pipefail
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cd "$work"

GOBIN="$work/bin" GOPATH="$work/go" GOFLAGS= go install github.com/fsouza/fake-gcs-server@v1.56.1 2>install.log ||
    { cat install.log >&2; exit 1; }
python3 - "$work/bin/fake-gcs-server" >out <<'PY'
import json, socket, subprocess, sys, time, urllib.error, urllib.request

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
command = [sys.argv[1], "-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory"]
server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def ask(method, path, body=None, kind="application/json"):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, {"Content-Type": kind}, method=method)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.loads(answer.read() or b"{}")
    except urllib.error.HTTPError as error:
        return error.code, {}


try:
    for _ in range(200):
        try:
            ask("GET", "/storage/v1/b")
            break
        except OSError:
            time.sleep(0.1)
    ask("POST", "/storage/v1/b?project=p", b'{"name": "bucket"}')
    upload = "/upload/storage/v1/b/bucket/o?uploadType=media&name="
    for name in ("part", "whole"):
        assert ask("POST", upload + name, b"old", "text/plain")[0] == 200
    again, _ = ask("POST", upload + "whole&ifGenerationMatch=0", b"new", "text/plain")
    parts = json.dumps({"sourceObjects": [{"name": "part"}], "destination": {"contentType": "text/plain"}})
    composed, _ = ask("POST", "/storage/v1/b/bucket/o/whole/compose?ifGenerationMatch=0", parts.encode())
    before = ask("GET", "/storage/v1/b/bucket/o/part")[1]["updated"]
    time.sleep(1.1)
    assert ask("PATCH", "/storage/v1/b/bucket/o/part", b'{"metadata": {"used": "now"}}')[0] == 200
    after = ask("GET", "/storage/v1/b/bucket/o/part")[1]["updated"]
    print(f"upload {again}, compose {composed}; updated after PATCH: {'same' if before == after else 'later'}")
finally:
    server.terminate()
    server.wait()
PY
echo "fake-gcs-server 1.56.1, ifGenerationMatch=0 on what exists: $(cat out)"
[ "$(cat out)" = "upload 412, compose 200; updated after PATCH: same" ]
