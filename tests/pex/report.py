"""Prints what a program can see of how it was started, as one line of JSON."""
import importlib, importlib.metadata, json, os, pkgutil, sys

MODULES = [
    "app.main", "lib_rary", "here", "extra_lib", "never", "nsp.one", "nsp.two", "pk.one", "pk.two", "clash", "clashing",
    "clash_a", "clash_b", "split", "split_pure", "split_plat", "tagged", "usercode", "userpkg.part", "outside", "merged",
    "pip",
]


def relative(path):
    """The path below the entry of sys.path that it was found by."""
    entries = sorted((p for p in sys.path if p), key=len, reverse=True)
    for form in (os.path.abspath, os.path.realpath):
        for entry in entries:
            if form(path).startswith(form(entry) + os.sep):
                return os.path.relpath(form(path), form(entry))
    return path


def found(name):
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        return type(error).__name__
    value = getattr(module, "VALUE", None)
    return [relative(module.__file__) if name != "pip" else "pip", value]


def metadata():
    names = {}
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name in ("pip", "setuptools") or name in names:
            continue
        points = sorted("%s:%s=%s" % (e.group, e.name, e.value) for e in distribution.entry_points)
        names[name] = [distribution.version, points, sorted(distribution.requires or [])]
    return names


def data():
    try:
        text = pkgutil.get_data("app", "data/hello.txt").decode()
        with open(os.path.join(os.path.dirname(importlib.import_module("app").__file__), "data", "hello.txt")) as file:
            return [text, file.read()]
    except Exception as error:
        return repr(error)


def plain(text):
    """Without what is different by design: where the environments of both runtimes lie."""
    if not any(place in text for place in ("/venvs/", "/environments/", "/installed_wheels/", "/unzipped_pexes/")):
        return text
    return "bin/" + os.path.basename(text) if "/bin/" in text else relative(text)


def report(entry):
    kept = ("PEX", "INJECTED", "GIVEN", "PYTHONPATH")
    path = os.environ["PATH"].split(":")
    print(json.dumps({
        "entry": entry,
        "argv": [plain(argument) for argument in sys.argv],
        "imports": {name: found(name) for name in MODULES},
        "metadata": metadata(),
        "data": data(),
        "pth": hasattr(sys, "lib_rary_pth"),
        "environ": {name: os.environ[name] for name in kept if name in os.environ},
        "pex_variables": sorted(name for name in os.environ if name.startswith("PEX_")),
        "virtual_env": "VIRTUAL_ENV" in os.environ,
        "bin_on_path": [os.path.exists(os.path.join(path[end], "app-tool")) for end in (0, -1)],
        "resource": relative(os.environ.get("RESOURCE", "")),
    }, sort_keys=True))
