"""The client uploads environments to a directory store."""

import json
import logging
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import unittest
import zipfile
from pathlib import Path
from unittest import mock

import cluster_pack
from cluster_pack import binary, functions, packaging, uploader

from client_case import Directory


class Index:
    """A directory of wheels, each with what it requires."""

    def __init__(self, directory, wheels):
        self.directory, self.wheels = Path(directory) / "index", wheels

    def __enter__(self):
        self.directory.mkdir()
        for name, requires in self.wheels.items():
            stem = f"{name.replace('-', '_')}-1.0"
            info = f"{stem}.dist-info"
            files = {
                f"{name.replace('-', '_')}.py": "",
                f"{info}/METADATA": "".join(
                    [f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", *(f"Requires-Dist: {r}\n" for r in requires)]
                ),
                f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            }
            files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
            with zipfile.ZipFile(self.directory / f"{stem}-py3-none-any.whl", "w") as wheel:
                for path, text in files.items():
                    wheel.writestr(path, text)
        return str(self.directory)

    def __exit__(self, *_):
        pass


class Uploads(Directory):
    def test_what_is_uploaded_runs_as_it_is_and_is_not_written_again(self):
        path, name = cluster_pack.upload_env(self.package())
        self.assertEqual((path, name), (self.package(), packaging.get_env_name("VIRTUAL_ENV")))
        self.assertTrue(os.stat(path).st_mode & stat.S_IXUSR)
        code = "import sys, cloudpickle, cluster_pack; print(sys.prefix)"
        self.assertNotEqual(self.output(path, "-c", code), sys.prefix)
        metadata = json.loads(Path(path).with_suffix(".json").read_text())
        self.assertIn(f"cloudpickle=={functions.cloudpickle.__version__}", metadata["package_installed"])
        self.assertEqual(metadata, uploader.metadata(path))
        before = os.stat(path)
        cluster_pack.upload_env(path)
        after = os.stat(path)
        self.assertEqual((before.st_ino, before.st_mtime_ns), (after.st_ino, after.st_mtime_ns))
        cluster_pack.upload_env(path, ignored_packages=["cloudpickle", "cluster_pack", "not-installed"])
        self.assertNotEqual(before.st_ino, os.stat(path).st_ino)
        self.assertNotIn("cloudpickle", Path(path).with_suffix(".json").read_text())

    def test_a_pex_is_made_where_one_is_asked_for(self):
        path, _ = cluster_pack.upload_env(self.package(), allow_large_pex=True)
        self.assertEqual(path, self.package("mine.pex.zip"))
        for name in ("renamed.pex", "renamed.pex.zip"):
            self.assertEqual(cluster_pack.upload_zip(path, self.package(name)), self.package(name))
            self.assertEqual(Path(self.package(name)).read_bytes(), Path(path).read_bytes())
        self.assertIn("PEX-INFO", zipfile.ZipFile(path).namelist())
        with mock.patch.dict(os.environ, C_PACK_FORMAT="pex"):
            path, _ = cluster_pack.upload_env(self.package())
        code = "import cloudpickle; print(cloudpickle.__file__)"
        self.assertIn("cloudpickle", self.output(sys.executable, path, "-c", code, PEX_ROOT=str(self.directory / "root")))
        copy = cluster_pack.upload_zip(path, self.package("copy.pex"))
        self.assertEqual(Path(copy).read_bytes(), Path(path).read_bytes())
        before = os.stat(copy)
        cluster_pack.upload_zip(path, copy)
        self.assertEqual(before.st_ino, os.stat(copy).st_ino)
        with mock.patch.dict(os.environ, C_PACK_ENV_FALLBACK_PATH=path):
            with self.assertLogs("cluster_pack", logging.WARNING) as logs:
                cluster_pack.upload_env(self.package("other.pex"), additional_packages={"six": "1.17.0"})
            self.assertIn("it differs in six", logs.output[0])
            prebuilt, _ = cluster_pack.upload_env(self.package("prebuilt.pex"))
        self.assertEqual(Path(prebuilt).read_bytes(), Path(path).read_bytes())

    def test_a_requirements_file_becomes_an_environment(self):
        spec = self.directory / "project" / "requirements.txt"
        spec.parent.mkdir()
        spec.write_text("six==1.17.0\n")
        path = cluster_pack.upload_spec(str(spec), str(self.directory / "envs"))
        self.assertEqual(path, self.package("cluster_pack_project.pex"))
        self.assertEqual(self.output(path, "-c", "import six; print(six.__version__)"), "1.17.0")
        with self.assertRaisesRegex(ValueError, "requirements.txt"):
            cluster_pack.upload_spec("environment.yml")

    def packages(self, **changes):
        path, _ = cluster_pack.upload_env(self.package(), **changes)
        return {line.split("==")[0] for line in uploader.metadata(path)["package_installed"]}

    def test_upload_env_packs_what_selected_packages_require(self):
        self.assertEqual(self.packages(only_packages=["Cluster_Pack"]), {"cluster-pack", "cloudpickle", "fsspec"})
        self.assertEqual(self.packages(only_packages=["pip"]), {"pip"})
        self.assertEqual(self.packages(only_packages=[]), set())
        with self.assertLogs("cluster_pack", logging.WARNING) as logs:
            self.assertIn("cloudpickle", self.packages(ignored_packages=["cloudpickle"]))
        self.assertIn("cluster-pack requires it", logs.output[0])
        kept = self.packages(ignored_packages=["cloudpickle", "cluster-pack"])
        self.assertEqual(kept & {"pip", "fsspec", "cloudpickle", "cluster-pack"}, {"pip", "fsspec"})
        with self.assertLogs("cluster_pack", logging.WARNING) as logs:
            self.assertEqual(self.packages(only_packages=["pip", "not-installed"]), {"pip"})
        self.assertIn("not-installed", logs.output[0])

    def test_upload_env_adds_packages_with_what_they_require(self):
        with Index(self.directory, {"needed-x": [], "added-x": ["needed-x"]}) as index:
            changes = {"additional_packages": {"added-x": "1.0"}, "additional_indexes": [index]}
            with mock.patch.dict(os.environ, PIP_NO_INDEX="1", UV_OFFLINE="1"):
                self.assertEqual(self.packages(only_packages=["pip", "added-x"], **changes), {"pip", "added-x", "needed-x"})
                self.assertEqual(self.packages(only_packages=["pip"], **changes), {"pip"})

    def test_upload_zip_takes_along_what_a_launcher_needs(self):
        path, _ = cluster_pack.upload_env(self.package(), only_packages=["cluster-pack"])
        copy = cluster_pack.upload_zip(path, str(self.directory / "other" / "copy.pex"))
        self.assertEqual(sorted(os.listdir(Path(copy).parent)), [".cluster-pack", "copy.json", "copy.pex"])
        self.assertIn("cloudpickle", "".join(uploader.metadata(copy)["package_installed"]))
        before = os.stat(copy)
        cluster_pack.upload_zip(path, copy)
        self.assertEqual(before.st_ino, os.stat(copy).st_ino)
        shutil.rmtree(Path(path).parent)
        cache = self.directory / "cache"
        cache.mkdir()
        code = "import cloudpickle; print(cloudpickle.__version__)"
        self.assertEqual(self.output(copy, "-c", code, CPACK_CACHE_DIR=str(cache)), functions.cloudpickle.__version__)
        self.assertIn("/other/.cluster-pack/", uploader.files_of(copy, "mine.pex")["mine.pex"])

        # A plain copy depends on the store that it names, and says so.
        store = Path(copy).parent / ".cluster-pack"
        shutil.rmtree(store)
        cache = self.directory / "empty"
        cache.mkdir()
        environ = {**os.environ, "CPACK_CACHE_DIR": str(cache)}
        done = subprocess.run([copy, "-c", ""], env=environ, stderr=subprocess.PIPE)
        said = done.stderr.decode()
        self.assertEqual((done.returncode, said.count("\n")), (84, 1))
        for needle in (f"the store file:{store},", "upload_zip", "C_PACK_FORMAT=pex"):
            self.assertIn(needle, said)
        with self.assertRaisesRegex(cluster_pack.ClusterPackError, f"needs the store file:{store}, which is gone"):
            cluster_pack.upload_zip(copy, self.package("again.pex"))

    def test_uploads_leave_no_directory_of_temporary_files(self):
        path, _ = cluster_pack.upload_env(self.package(), only_packages=["pip"])
        self.assertEqual(sorted(os.listdir(Path(path).parent)), [".cluster-pack", "mine.json", "mine.pex"])

    def test_metadata_of_a_pex_is_of_what_is_in_it(self):
        with Index(self.directory, {"added-x": []}) as index:
            spec = self.directory / "requirements.txt"
            spec.write_text(f"--find-links {index}\nadded-x\n")
            with mock.patch.dict(os.environ, PIP_NO_INDEX="1", UV_OFFLINE="1"):
                for layout in ("launcher", "pex"):
                    with mock.patch.dict(os.environ, C_PACK_FORMAT=layout):
                        path = cluster_pack.upload_spec(str(spec), self.package(f"{layout}.pex"))
                    metadata = uploader.metadata(path)
                    self.assertEqual(metadata["package_installed"], ["added-x==1.0"], layout)
                    self.assertEqual(metadata["python_version"], uploader.get_platform_and_python_version()[1])
        path, _ = cluster_pack.upload_env(self.package(), only_packages=["pip"], allow_large_pex=True)
        self.assertRegex("".join(uploader.metadata(path)["package_installed"]), r"^pip==[^=]*$")

    def test_wrong_names_are_told(self):
        with self.assertRaisesRegex(ValueError, "extension"):
            cluster_pack.upload_env(str(self.directory / "env.tar.gz"))
        with self.assertRaisesRegex(cluster_pack.ClusterPackError, "cloudpickle"):
            cluster_pack.upload_env(self.package(), only_packages=["cloudpikle"])
        with mock.patch.dict(os.environ, {"HADOOP_CONF_DIR": "", "HADOOP_HOME": "", "PATH": "/nowhere"}):
            with self.assertRaisesRegex(cluster_pack.ClusterPackError, "HADOOP_CONF_DIR"):
                cluster_pack.upload_env()
        with mock.patch.dict(os.environ, CLUSTER_PACK_BIN="/nowhere/cluster-pack"):
            with self.assertRaisesRegex(cluster_pack.ClusterPackError, "/nowhere"):
                cluster_pack.upload_env(self.package())

    def test_other_file_systems_get_one_file_by_fsspec(self):
        import fsspec

        memory = fsspec.filesystem("memory")
        self.addCleanup(memory.store.clear)
        path = "memory://envs/mine.pex"
        with self.assertLogs("cluster_pack", logging.INFO) as logs:
            self.assertEqual(cluster_pack.upload_env(path)[0], path)
        said = [line for line in logs.output if "fsspec" in line]
        self.assertEqual(len(said), 1, logs.output)
        self.assertTrue("memory:" in said[0] and path in said[0], said)
        written = memory.cat_file("/envs/mine.pex")
        (self.directory / "mine.pex").write_bytes(written)
        code = "import cloudpickle; print('ran')"
        root = str(self.directory / "root")
        self.assertEqual(self.output(sys.executable, str(self.directory / "mine.pex"), "-c", code, PEX_ROOT=root), "ran")
        self.assertIn("package_installed", uploader.metadata(path))
        self.assertEqual(uploader.files_of(path, "mine.pex"), {"mine.pex": path})
        memory.pipe_file("/envs/mine.pex", b"kept")
        cluster_pack.upload_env(path)
        self.assertEqual(memory.cat_file("/envs/mine.pex"), b"kept", "unchanged: nothing is sent")
        cluster_pack.upload_env(path, force_upload=True)
        self.assertNotEqual(memory.cat_file("/envs/mine.pex"), b"kept")
        with mock.patch.object(type(memory), "put_file", side_effect=OSError("full")), self.assertRaisesRegex(OSError, "full"):
            cluster_pack.upload_env(path, force_upload=True)
        self.assertFalse(memory.exists("/envs/mine.json"), "nothing tells of a file that may be half")
        requirements = self.directory / "requirements.txt"
        requirements.write_text("")
        with Index(self.directory, {}), self.assertLogs("cluster_pack", logging.INFO):
            self.assertEqual(cluster_pack.upload_spec(str(requirements), "memory://envs/spec.pex"), "memory://envs/spec.pex")
        self.assertTrue(memory.exists("/envs/spec.pex"))


class Notebooks(unittest.TestCase):
    def test_progress_is_shown(self):
        shown = []
        with mock.patch.object(binary, "_in_notebook", lambda: True), mock.patch.object(
            binary, "_show_in_notebook", lambda: shown.append
        ), tempfile.TemporaryDirectory() as directory:
            cluster_pack.upload_env(f"{directory}/envs/mine.pex")
            self.assertIn("sent", "".join(shown))
            with self.assertRaisesRegex(cluster_pack.ClusterPackError, "pikle"):
                cluster_pack.upload_env(f"{directory}/envs/mine.pex", only_packages=["cloudpikle"])


if __name__ == "__main__":
    unittest.main()
