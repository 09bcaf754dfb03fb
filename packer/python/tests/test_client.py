"""The client on a directory store, from an environment that has it: uploads, functions, messages."""

import http.server
import json
import logging
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import unittest
import zipfile
from pathlib import Path
from unittest import mock

import cluster_pack
from cluster_pack import binary, filesystem, functions, packaging, settings, uploader
from cluster_pack.skein import skein_config_builder
from cluster_pack.spark import spark_config_builder


class Directory(unittest.TestCase):
    def setUp(self):
        own = tempfile.TemporaryDirectory()
        self.addCleanup(own.cleanup)
        self.directory = Path(own.name)

    def package(self, name="mine.pex"):
        return str(self.directory / "envs" / name)

    def output(self, program, *arguments, **variables):
        environ = {**os.environ, **variables}
        done = subprocess.run([program, *arguments], stdout=subprocess.PIPE, env=environ, cwd="/", check=True)
        return done.stdout.decode().strip()


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
            with mock.patch.dict(os.environ, PIP_NO_INDEX="1", UV_NO_INDEX="1"):
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
            with mock.patch.dict(os.environ, PIP_NO_INDEX="1", UV_NO_INDEX="1"):
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


class Packer(packaging.PexPacker):
    """Packs in its own way, as code that was written for the library on PyPI does."""

    def __init__(self):
        self.calls = []

    def env_name(self):
        return "own"

    def pack(self, output, reqs, additional_packages, ignored_packages, editable_requirements, **options):
        self.calls.append((reqs, additional_packages, ignored_packages, editable_requirements, options))
        Path(output).write_text("packed")
        return output


class Packers(Directory):
    def test_a_packer_with_a_pack_of_its_own_is_called(self):
        packer = Packer()
        changes = {"additional_packages": {"six": "1.17.0"}, "ignored_packages": ["pip", "fsspec"]}
        for _ in range(2):
            path, name = cluster_pack.upload_env(self.package(), packer, allow_large_pex=False, **changes)
        self.assertEqual((Path(path).read_text(), name), ("packed", "own"))
        (requirements, additional, ignored, editables, options), = packer.calls
        names = {line.split("==")[0] for line in requirements}
        self.assertEqual(names & {"six", "pip", "fsspec", "cloudpickle"}, {"six", "cloudpickle"})
        self.assertEqual((additional, ignored, editables), ({"six": "1.17.0"}, ["pip", "fsspec"], {}))
        self.assertEqual(set(options), {"allow_large_pex", "include_pex_tools", "additional_repo", "additional_indexes"})
        self.assertEqual(uploader.metadata(path)["package_installed"], requirements)
        cluster_pack.upload_env(self.package(), packer, force_upload=True, only_packages=["pip"])
        self.assertEqual([line.split("==")[0] for line in packer.calls[1][0]], ["pip"])

    def test_a_packer_with_a_name_of_its_own_leaves_packing_to_the_library(self):
        class Named(packaging.PexPacker):
            def env_name(self):
                return "named"

        path, name = cluster_pack.upload_env(self.package(), Named(), only_packages=["pip"], ignored_packages=["fsspec"])
        self.assertEqual((name, Path(path).read_bytes()[1:4]), ("named", b"ELF"))

    def test_editable_requirements_are_packed_into_a_pex(self):
        package = self.directory / "src" / "alpha"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("VALUE = 5")
        (package / "data.txt").write_text("data")
        code = "import alpha, pathlib; print(alpha.VALUE, pathlib.Path(alpha.__file__).with_name('data.txt').read_text())"
        editables = {"alpha": str(package)}
        output = str(self.directory / "out.pex")
        packaging.pack_in_pex([], output, editable_requirements=editables)
        root = str(self.directory / "root")
        self.assertEqual(self.output(sys.executable, output, "-c", code, PEX_ROOT=root), "5 data")
        output = str(self.directory / "packer.pex")
        packed = cluster_pack.PEX_PACKER.pack(output, [], {}, [], editables, allow_large_pex=True)
        zipfile.ZipFile(packed).extractall(output)
        self.assertEqual(self.output(sys.executable, output, "-c", code, PEX_ROOT=root), "5 data")


class Environments(Directory):
    def test_authorities_are_kept_as_they_are_written(self):
        import fsspec

        for uri, host, port in (
            ("viewfs://Prod-AM6/path", "viewfs://Prod-AM6", 0),
            ("hdfs://user@nn/path", "hdfs://user@nn", 0),
            ("hdfs://User@NN:8020/path", "hdfs://User@NN", 8020),
            ("hdfs://nn:/path", "hdfs://nn", 0),
            ("hdfs://[::1]/path", "hdfs://[::1]", 0),
            ("hdfs:///path", "default", 0),
        ):
            with mock.patch.object(fsspec, "filesystem") as opened:
                _, path = filesystem.resolve_filesystem_and_path(uri)
                self.assertEqual((opened.call_args, path), (mock.call("hdfs", host=host, port=port), "/path"))
        with self.assertRaisesRegex(ValueError, "hdfs://nn:abc/path: the port 'abc'"):
            filesystem.resolve_filesystem_and_path("hdfs://nn:abc/path")

    def test_file_systems_name_the_extra_that_brings_their_driver(self):
        files, path = filesystem.resolve_filesystem_and_path(str(self.directory))
        self.assertTrue(files.exists(path))
        for uri, extra in (
            ("s3://b/k", "s3"),
            ("hdfs://nn/k", "hdfs"),
            ("gs://b/k", "gs"),
            ("abfss://c@a.dfs.core.windows.net/k", "azure"),
            ("wasbs://c@a.blob.core.windows.net/k", "azure"),
        ):
            with self.assertRaisesRegex(cluster_pack.ClusterPackError, rf"pip install 'cluster-pack\[{extra}\]'"):
                filesystem.resolve_filesystem_and_path(uri)

    def test_the_default_file_system_is_hadoops(self):
        conf = self.directory / "core-site.xml"
        conf.write_text(
            "<configuration><property><name>fs.defaultFS</name><value>hdfs://nn:1</value></property></configuration>"
        )
        with mock.patch.dict(os.environ, {"HADOOP_CONF_DIR": str(self.directory), "C_PACK_USER": "somebody"}):
            self.assertEqual(cluster_pack.get_default_fs(), "hdfs://nn:1")
            path, _, _ = packaging.detect_archive_names(cluster_pack.PEX_PACKER, None, True)
            self.assertRegex(path, r"^hdfs://nn:1/user/somebody/envs/.*\.pex\.zip$")

    def test_requirements_are_those_that_are_installed(self):
        found = cluster_pack.get_non_editable_requirements()
        self.assertEqual(found["cloudpickle"], functions.cloudpickle.__version__)
        self.assertIn("cluster-pack", {name.replace("_", "-") for name in found})

    def test_the_use_of_an_archive_follows_its_name(self):
        for path, expected in (
            ("hdfs:///e/a.pex", ("./a.pex", "a.pex", False)),
            ("/e/a.pex.zip", ("pyenv/__main__.py", "pyenv", True)),
            ("s3://b/e/env-python", ("./env-python", "env-python", False)),
        ):
            self.assertEqual(cluster_pack.get_pyenv_usage_from_archive(path)[1:], expected)
        with self.assertRaises(ValueError):
            cluster_pack.get_pyenv_usage_from_archive("/e/a.tar.gz")

    def test_settings_are_those_of_the_variables(self):
        self.assertEqual(settings.LayoutOptimization.from_string("fast_mid_big").get_params(), ("loose", True, 0))
        cluster_pack.set_layout_optimization("MID_SLOW_SMALL")
        self.addCleanup(cluster_pack.set_layout_optimization, "SLOW_FAST_SMALL")
        self.assertEqual(cluster_pack.get_layout_optimization().get_params().compress_level, 1)
        with self.assertRaisesRegex(ValueError, "SLOW_FAST_SMALL"):
            cluster_pack.set_layout_optimization("fast")

    def test_file_system_arguments_become_variables(self):
        given = {"key": "k", "secret": "s", "client_kwargs": {"endpoint_url": "u"}, "odd": 1}
        with self.assertLogs("cluster_pack", logging.WARNING):
            found = cluster_pack.uploader.filesystem.variables(given)
        self.assertEqual(found, {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_ENDPOINT_URL": "u"})

    def test_file_system_arguments_mean_what_the_scheme_s_driver_means(self):
        key = self.directory / "key.json"
        key.write_text("{}")
        for uri, given, expected in (
            ("gs://b/x.pex", {"token": str(key), "project": "p"}, {"GOOGLE_APPLICATION_CREDENTIALS": str(key)}),
            ("gs://b/x.pex", {"token": "anon", "endpoint_url": "http://h"}, {"STORAGE_EMULATOR_HOST": "http://h"}),
            ("az://c/x.pex", {"account_name": "a", "account_key": "k"}, {"AZURE_STORAGE_ACCOUNT": "a", "AZURE_STORAGE_KEY": "k"}),
            ("wasbs://c@a.blob.x/x", {"sas_token": "s"}, {"AZURE_STORAGE_SAS_TOKEN": "s"}),
            ("s3://b/x.pex", {"token": "t"}, {"AWS_SESSION_TOKEN": "t"}),
            ("memory://x.pex", {"anything": "t"}, {}),
        ):
            self.assertEqual(filesystem.variables(given, uri), expected, uri)
        with self.assertLogs("cluster_pack", logging.WARNING) as logs:
            self.assertEqual(filesystem.variables({"token": {"private_key": "s3cr3t"}}, "gs://b/x"), {})
        self.assertNotIn("s3cr3t", "".join(logs.output))

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
        self.assertIn("package_installed", json.loads(memory.cat_file("/envs/mine.json")))
        self.assertEqual(uploader.files_of(path, "mine.pex"), {"mine.pex": path})
        memory.pipe_file("/envs/mine.pex", b"kept")
        cluster_pack.upload_env(path)
        self.assertEqual(memory.cat_file("/envs/mine.pex"), b"kept", "unchanged: nothing is sent")
        cluster_pack.upload_env(path, force_upload=True)
        self.assertNotEqual(memory.cat_file("/envs/mine.pex"), b"kept")
        requirements = self.directory / "requirements.txt"
        requirements.write_text("")
        with Index(self.directory, {}), self.assertLogs("cluster_pack", logging.INFO):
            self.assertEqual(cluster_pack.upload_spec(str(requirements), "memory://envs/spec.pex"), "memory://envs/spec.pex")
        self.assertTrue(memory.exists("/envs/spec.pex"))

    def test_a_zip_has_the_directory_or_not(self):
        package = self.directory / "pkg"
        (package / "inner").mkdir(parents=True)
        for name in ("__init__.py", "inner/data.txt", "old.pyc"):
            (package / name).write_text("x")
        for include, names in ((True, ["pkg/__init__.py", "pkg/inner/data.txt"]), (False, ["__init__.py", "inner/data.txt"])):
            archive = cluster_pack.zip_path(str(package), include, str(self.directory))
            self.assertEqual(zipfile.ZipFile(archive).namelist(), names)


class Odd(Exception):
    """Cannot be made again from its pickle."""

    def __init__(self, one, two):
        super().__init__(one)


def divide(one, two=1):
    logging.info("dividing")
    return one / two


def in_environment():
    return sys.prefix, os.environ["CPACK_LAUNCHER"]


class Functions(Directory):
    def test_results_come_back(self):
        self.assertEqual(cluster_pack.run(divide, [6], {"two": 3}), 2)
        captured = {"n": 4}
        self.assertEqual(cluster_pack.run(lambda: captured["n"] + 1), 5)
        prefix, launcher = cluster_pack.run(in_environment)
        self.assertNotEqual(prefix, sys.prefix)
        self.assertTrue(launcher.endswith("env-python"))

    def test_exceptions_come_back_with_their_traceback(self):
        with self.assertRaises(ZeroDivisionError) as raised:
            cluster_pack.run(divide, [1, 0])
        self.assertIn("return one / two", str(raised.exception.__cause__))

        def odd():
            raise Odd(1, 2)

        with self.assertRaisesRegex(cluster_pack.RemoteError, "Odd: 1") as raised:
            cluster_pack.run(odd)
        self.assertIn("in odd", str(raised.exception.__cause__))
        with self.assertRaisesRegex(cluster_pack.RemoteError, "cannot be pickled"):
            cluster_pack.run(threading.Lock)
        with self.assertRaisesRegex(cluster_pack.ClusterPackError, "left no result"):
            cluster_pack.run(os._exit, [3])

    def test_a_plain_remote_shell_will_do(self):
        # As `ssh host`: what follows is a command line for the shell there, which starts elsewhere.
        shell = cluster_pack.Shell(["env", "-i", f"PATH={os.environ['PATH']}", "HOME=/", "sh", "-c"])
        with mock.patch.dict(os.environ, VIRTUAL_ENV=sys.prefix):
            self.assertEqual(cluster_pack.run(divide, [1, 2], where=shell), 0.5)
            with self.assertRaises(ZeroDivisionError):
                cluster_pack.run(divide, [1, 0], where=shell)
            with self.assertRaisesRegex(cluster_pack.ClusterPackError, "left no result"):
                cluster_pack.run(os._exit, [3], where=shell)

    def test_what_cannot_be_pickled_is_told_before_anything_is_sent(self):
        lock = threading.Lock()
        with self.assertRaisesRegex(cluster_pack.ClusterPackError, "cannot be pickled"):
            cluster_pack.run(lambda: lock)

    def test_environments_that_cannot_take_functions_are_told(self):
        path, _ = cluster_pack.upload_env(self.package(), only_packages=["pip"])
        with self.assertRaisesRegex(cluster_pack.ClusterPackError, "no cloudpickle"):
            skein_config_builder.build_with_func(print, package_path=path)
        beside = Path(path).with_suffix(".json")
        beside.write_text(beside.read_text().replace(f'"python_version": "3.', '"python_version": "2.'))
        with self.assertRaisesRegex(cluster_pack.ClusterPackError, "Python 2"):
            skein_config_builder.build_with_func(print, package_path=path)

    def test_jobs_start_jobs(self):
        def outer(depth):
            import os

            import cluster_pack

            if depth == 0:
                return os.environ["CPACK_ENVIRONMENT"]
            # Nothing here may be packed, nor any client state be used.
            os.environ["CPACK_CLIENT_CACHE"] = "/dev/null/nothing"
            return cluster_pack.run(outer, [depth - 1])

        # The same environment, whatever the depth.
        self.assertEqual(cluster_pack.run(outer, [2]), cluster_pack.run(outer, [0]))

    def test_jobs_whose_launcher_came_in_parts_start_jobs(self):
        path, _ = cluster_pack.upload_env(self.package())
        container = self.directory / "container"
        container.mkdir()
        for name, source in uploader._parts[path].named("env-python").items():
            shutil.copyfile(source, container / name)
            os.chmod(container / name, 0o500)
        code = """
import os, cluster_pack
from cluster_pack import binary
running = binary.booted()
whole = binary.whole(running)
print(running, whole, binary.whole(running) == whole, open(whole, "rb").read(4)[1:].decode(), cluster_pack.run(os.getpgrp) > 0)
"""
        launcher = str(container / "env-python")
        words = self.output(launcher, "-c", code, CPACK_CLIENT_CACHE="/dev/null/nothing").split()
        self.assertEqual((words[0], words[2:]), (launcher, ["True", "ELF", "True"]))
        self.assertFalse(os.path.exists(words[1]), "what was written for the process goes with it")


def run_script(config, directory):
    """Does with a service what Skein does."""
    for name, source in config.files.items():
        if source.endswith(".zip") and not name.endswith(".zip"):
            zipfile.ZipFile(source).extractall(directory / name)
        else:
            shutil.copyfile(source, directory / name)
            os.chmod(directory / name, 0o500)
    (directory / "script.sh").write_text(config.script)
    environ = {**os.environ, **config.env}
    done = subprocess.run(["bash", "script.sh"], cwd=directory, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout.decode()


class Services(Directory):
    def setUp(self):
        super().setUp()
        self.container = self.directory / "container"
        self.container.mkdir()

    def test_a_module_runs_with_its_arguments(self):
        path, _ = cluster_pack.upload_env(self.package())
        extra = self.directory / "extra.py"
        extra.write_text("import sys; print('extra', sys.argv[1:])")
        config = skein_config_builder.build("extra", ["a", 1], path, [str(extra)], str(self.directory))
        self.assertEqual(run_script(config, self.container), (0, "extra ['a', '1']\n"))

    def test_a_function_runs_and_its_log_is_processed(self):
        path, _ = cluster_pack.upload_env(self.package())
        marker = "of the function"

        def function(code):
            print(marker)
            sys.exit(code)

        def logs(path):
            print("log:", open(path).read().strip())

        for code in (0, 7):
            with self.subTest(code=code), tempfile.TemporaryDirectory() as container:
                config = skein_config_builder.build_with_func(
                    function, [code], path, tmp_dir=str(self.directory), process_logs=logs
                )
                expected = f"{marker}\nlog: {marker}\n"
                self.assertEqual(run_script(config, Path(container)), (code, expected))


class Endpoint:
    """An S3 that has nothing, and remembers whose keys it was shown."""

    def __enter__(self):
        self.keys = keys = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                keys.append((self.headers["Authorization"].split("Credential=")[1].split("/")[0],
                             self.headers.get("X-Amz-Security-Token")))
                self.send_response(404)
                self.send_header("Content-Type", "application/xml")
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(b"<Error><Code>NoSuchKey</Code></Error>")

            do_HEAD = do_GET

            def log_message(self, *arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


class Builder:
    """A session's builder, without Spark."""

    def __init__(self, **options):
        self._options = {name.replace("_", "."): value for name, value in options.items()}

    def config(self, key, value):
        self._options[key] = value


class Sessions(Directory):
    def test_executors_get_the_environment(self):
        with mock.patch.dict(os.environ):
            builder = Builder(spark_master="local-cluster[2,1,1024]", spark_files="/a")
            spark_config_builder.add_packaged_environment(builder, "/e/mine.pex")
            self.assertEqual(builder._options["spark.files"], "/a,/e/mine.pex")
            self.assertEqual(os.environ["PYSPARK_PYTHON"], "./mine.pex")
            builder = Builder(spark_master="yarn")
            spark_config_builder.add_packaged_environment(builder, "s3://b/e/mine.pex.zip")
            self.assertEqual(builder._options["spark.yarn.dist.archives"], "s3a://b/e/mine.pex.zip#pyenv")
            self.assertEqual(os.environ["PYSPARK_PYTHON"], "pyenv/__main__.py")

    def test_yarn_gets_the_copy_that_does_not_change(self):
        path, _ = cluster_pack.upload_env(self.package())
        with mock.patch.dict(os.environ):
            builder = Builder(spark_master="yarn")
            spark_config_builder.add_packaged_environment(builder, path)
        digest = "[0-9a-f]{64}"
        parts = f"^/.*/launchers/{digest}#mine.pex,/.*/boot/{digest}#cpack-boot$"
        self.assertRegex(builder._options["spark.yarn.dist.files"], parts)

    def test_a_session_on_s3_asks_only_the_endpoint_that_it_was_told(self):
        archive = "s3://bucket/envs/mine.pex"
        with Endpoint() as own, Endpoint() as others, mock.patch.dict(os.environ):
            os.environ.update(
                AWS_ENDPOINT_URL=others.url, AWS_ACCESS_KEY_ID="mine", AWS_SECRET_ACCESS_KEY="secret", AWS_SESSION_TOKEN="t"
            )
            spark_config_builder.add_packaged_environment(Builder(), archive)
            self.assertEqual((own.keys, others.keys), ([], []))
            builder = Builder()
            arguments = {"key": "given", "secret": "s", "client_kwargs": {"endpoint_url": own.url, "region_name": "r"}}
            spark_config_builder.add_s3_params(builder, arguments)
            with self.assertNoLogs("cluster_pack", logging.WARNING) if hasattr(self, "assertNoLogs") else mock.MagicMock():
                spark_config_builder.add_packaged_environment(builder, archive)
            self.assertEqual((set(own.keys), others.keys), ({("given", None)}, []))
            # A function is pickled for an environment that somebody else uploaded.
            skein_config_builder.build_with_func(print, package_path=archive, tmp_dir=str(self.directory))
            self.assertEqual(others.keys, [])

    def test_s3_is_told_once(self):
        builder = Builder()
        arguments = {"key": "k", "secret": "s", "client_kwargs": {"endpoint_url": "u"}}
        spark_config_builder.add_s3_params(builder, arguments)
        self.assertEqual(builder._options["spark.hadoop.fs.s3a.endpoint"], "u")


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
