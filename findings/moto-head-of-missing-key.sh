#!/usr/bin/env bash
# moto 5.2.5 answers HEAD of a missing key with 404 and `text/html`, as a web server would; S3 answers `application/xml`.
#
# Clients that take HTML for the page of a proxy between them and the store must not do so here: there is no body.
#
# Seen with: CPython 3.11, moto 5.2.5.
# Output:    moto 5.2.5: HEAD of a missing key gives 404, text/html; charset=utf-8, 0 bytes
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

python3 -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check 'moto[server,s3]==5.2.5'
answer=$(env/bin/python - 2>/dev/null <<'PY' | tail -n 1
import http.client
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
server.start()
host, port = server.get_host_and_port()
def ask(method, path):
    connection = http.client.HTTPConnection(host, port)
    headers = {"Authorization": "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"}
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.getheader("Content-Type"), len(answer.read())
ask("PUT", "/bucket")
status, kind, size = ask("HEAD", "/bucket/missing")
print(f"{status}, {kind}, {size} bytes")
server.stop()
PY
)

echo "moto 5.2.5: HEAD of a missing key gives $answer"
[ "$answer" = "404, text/html; charset=utf-8, 0 bytes" ]
