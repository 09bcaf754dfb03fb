"""What the builders of Skein and Spark give to services and sessions."""

import http.server
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import unittest
import zipfile
from pathlib import Path
from unittest import mock

import cluster_pack
from cluster_pack.skein import skein_config_builder
from cluster_pack.spark import spark_config_builder

from client_case import Directory


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
            # A function is pickled for an environment that another user uploaded.
            skein_config_builder.build_with_func(print, package_path=archive, tmp_dir=str(self.directory))
            self.assertEqual(others.keys, [])

    def test_s3_is_told_once(self):
        builder = Builder()
        arguments = {"key": "k", "secret": "s", "client_kwargs": {"endpoint_url": "u"}}
        spark_config_builder.add_s3_params(builder, arguments)
        self.assertEqual(builder._options["spark.hadoop.fs.s3a.endpoint"], "u")


if __name__ == "__main__":
    unittest.main()
