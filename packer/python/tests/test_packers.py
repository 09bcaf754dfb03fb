"""Packers of the user, and the one of this library."""

import sys
import unittest
import zipfile
from pathlib import Path

import cluster_pack
from cluster_pack import packaging, uploader

from client_case import Directory


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


if __name__ == "__main__":
    unittest.main()
