"""Prints the public names of an installed `cluster_pack` with their signatures, as JSON."""

import importlib
import inspect
import json
import sys
import types

MODULES = [
    "cluster_pack",
    "cluster_pack.filesystem",
    "cluster_pack.packaging",
    "cluster_pack.process",
    "cluster_pack.uploader",
    "cluster_pack.skein",
    "cluster_pack.skein.skein_config_builder",
    "cluster_pack.skein.skein_launcher",
    "cluster_pack.skein.yarn_launcher",
    "cluster_pack.spark.spark_config_builder",
]


def stand_in_for_pyspark():
    """Spark itself is not needed to look at names."""
    try:
        import pyspark.sql  # noqa: F401
    except ImportError:
        package, sql = types.ModuleType("pyspark"), types.ModuleType("pyspark.sql")
        sql.SparkSession = type("SparkSession", (), {"Builder": type("Builder", (), {})})
        sys.modules.update({"pyspark": package, "pyspark.sql": sql})


def parameters(function):
    found = inspect.signature(function).parameters.values()
    return [[p.name, p.kind.name, None if p.default is p.empty else repr(p.default)] for p in found]


def described(value):
    if inspect.isclass(value):
        methods = inspect.getmembers(value, inspect.isfunction)
        own = {name: parameters(method) for name, method in methods if not name.startswith("_")}
        return {"class": own, "fields": list(getattr(value, "_fields", []))}
    if inspect.isfunction(value):
        return {"function": parameters(value)}
    if isinstance(value, types.ModuleType):
        return {"module": value.__name__}
    return {"value": type(value).__name__}


def surface(name):
    module = importlib.import_module(name)
    found = {}
    for key, value in vars(module).items():
        own = getattr(value, "__module__", None) or getattr(value, "__name__", "")
        constant = isinstance(value, str) and key.isupper()
        if not key.startswith("_") and (constant or str(own).startswith("cluster_pack")):
            found[key] = described(value)
    return found


if __name__ == "__main__":
    stand_in_for_pyspark()
    json.dump({name: surface(name) for name in MODULES}, sys.stdout, indent=1)
