"""What the client finds out about environments, file systems and settings."""

import logging
import os
import unittest
import zipfile
from unittest import mock

import cluster_pack
from cluster_pack import filesystem, functions, packaging, settings

from client_case import Directory


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
        with mock.patch.dict(os.environ, {"HADOOP_CONF_DIR": str(self.directory), "C_PACK_USER": "alice"}):
            self.assertEqual(cluster_pack.get_default_fs(), "hdfs://nn:1")
            path, _, _ = packaging.detect_archive_names(cluster_pack.PEX_PACKER, None, True)
            self.assertRegex(path, r"^hdfs://nn:1/user/alice/envs/.*\.pex\.zip$")

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

    def test_a_zip_has_the_directory_or_not(self):
        package = self.directory / "pkg"
        (package / "inner").mkdir(parents=True)
        for name in ("__init__.py", "inner/data.txt", "old.pyc"):
            (package / name).write_text("x")
        for include, names in ((True, ["pkg/__init__.py", "pkg/inner/data.txt"]), (False, ["__init__.py", "inner/data.txt"])):
            archive = cluster_pack.zip_path(str(package), include, str(self.directory))
            self.assertEqual(zipfile.ZipFile(archive).namelist(), names)


if __name__ == "__main__":
    unittest.main()
