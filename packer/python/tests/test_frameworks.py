"""Frameworks that start their workers by a command: a launcher is all that they need.

The environment has `distributed`, `ray` and `kubernetes-validate`.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

import cloudpickle

from cluster_pack import binary


def where():
    import sys

    return sys.prefix


class Recipes(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.own = tempfile.TemporaryDirectory()
        cls.directory = Path(cls.own.name)
        cls.store = str(cls.directory / "store")
        cls.launcher = str(cls.directory / "env-python")
        # Workers are other processes than the one in which the functions were made.
        os.environ["CPACK_STORE"] = cls.store
        binary.call(["launcher", "--output", cls.launcher])

    @classmethod
    def tearDownClass(cls):
        cls.own.cleanup()

    def assertElsewhere(self, prefixes):
        """One prefix is that of a plain start, the other that of a lazy one."""
        self.assertEqual(sorted(Path(prefix).parent.name for prefix in prefixes), ["environments", "served"])

    def lazily(self):
        """Variables of a start that is lazy: in a node cache of its own, since the usual one has the environment."""
        return {"CPACK_START": "lazy", "CPACK_CACHE_DIR": tempfile.mkdtemp(dir=self.directory)}

    def start(self, *command, **variables):
        environ = {**os.environ, **variables}
        nothing = subprocess.DEVNULL
        process = subprocess.Popen(command, cwd=self.directory, env=environ, stdout=nothing, stderr=nothing)
        self.addCleanup(process.wait)
        self.addCleanup(process.terminate)
        return process

    def test_dask_workers(self):
        from distributed import Client

        file = self.directory / "scheduler.json"
        own = ["--host", "127.0.0.1", "--scheduler-file", str(file)]
        self.start(sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0", "--no-dashboard", *own)
        worker = ["-m", "distributed.cli.dask_worker", "--scheduler-file", str(file), "--nthreads", "1", "--no-dashboard"]
        for variables in ({}, self.lazily()):
            self.start(self.launcher, *worker, "--no-nanny", "--host", "127.0.0.1", **variables)
        for _ in range(600):
            if file.exists():
                break
            time.sleep(0.2)
        with Client(scheduler_file=str(file)) as client:
            client.wait_for_workers(2, timeout=300)
            # Workers do not have this file: the function travels as it is.
            cloudpickle.register_pickle_by_value(sys.modules[__name__])
            self.assertElsewhere(client.run(where).values())
            self.assertEqual(client.submit(sum, [1, 2, 3]).result(timeout=120), 6)

    def test_ray_tasks(self):
        import ray

        ray.init(
            num_cpus=1,
            include_dashboard=False,
            runtime_env={"py_executable": self.launcher},
            _temp_dir=tempfile.mkdtemp(prefix="ray"),
            object_store_memory=100 << 20,
        )
        self.addCleanup(ray.shutdown)
        lazily = ray.remote(where).options(
            runtime_env={"py_executable": self.launcher, "env_vars": self.lazily()}
        )
        tasks = [ray.remote(where).remote(), lazily.remote()]
        self.assertElsewhere([ray.get(task, timeout=300) for task in tasks])

    def test_kubernetes_jobs(self):
        import kubernetes_validate

        common = ["kubernetes", "job", "--image", "python:3.11-slim", "--node-cache", "/var/cache/cpack"]
        common += ["--env", "TOLD=here"]
        arguments = ["--", "-c", "import os; print(os.environ['TOLD'])"]
        boot = os.path.join(os.path.dirname(binary.find()), "cpack-boot")
        for way in (["--claim", "environments"], ["--boot-path", boot]):
            manifest = binary.call([*common, *way, *arguments])
            kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
            container = manifest["spec"]["template"]["spec"]["containers"][0]
            self.assertEqual(container["args"], arguments[1:])
            variables = {variable["name"]: variable["value"] for variable in container["env"]}
            self.assertNotIn("TOLD", variables.get("CPACK_JOB", ""))
            for name in ("CPACK_CACHE_DIR", "TMPDIR"):
                variables[name] = tempfile.mkdtemp(dir=self.directory)
            command = [*container["command"], *container["args"]]
            done = subprocess.run(command, env={**os.environ, **variables}, stdout=subprocess.PIPE, check=True)
            self.assertEqual(done.stdout, b"here\n")
        with self.assertRaisesRegex(Exception, "--claim"):
            binary.call(common)

    def test_skein_specifications(self):
        command = ["skein", "spec", "-m", "json.tool", "--instances", "2", "--env", "TOLD=here", "--", "a b.json"]
        spec = binary.call(command)
        service = spec["services"]["main"]
        self.assertEqual(service["script"], "exec ./env-python 'a b.json'\n")
        self.assertEqual((service["instances"], service["env"]), (2, {"TOLD": "here"}))
        source = service["files"]["env-python"]["source"]
        self.assertTrue(os.access(source[len("file://") :], os.X_OK), json.dumps(spec))



if __name__ == "__main__":
    unittest.main()
