# Tells what cluster-pack must know of this interpreter, as one JSON object. Run with -I -S -B.
import importlib.util, json, os, site, sys, sysconfig

stdlib = sysconfig.get_path("stdlib")
names = getattr(sys, "stdlib_module_names", None)
if names is None:  # before 3.10
    names = set(sys.builtin_module_names)
    for folder in (stdlib, os.path.join(stdlib, "lib-dynload")):
        for name in os.listdir(folder) if os.path.isdir(folder) else ():
            top = name.split(".")[0]
            if name.endswith((".py", ".so")) or os.path.exists(os.path.join(folder, name, "__init__.py")):
                names.add(top)
try:
    glibc = os.confstr("CS_GNU_LIBC_VERSION").split()[1]
except (ValueError, OSError, AttributeError, IndexError):
    glibc = None
print(json.dumps({
    "implementation": sys.implementation.name,
    "version": sys.version.split()[0].rstrip("+"),
    "tag": "%d.%d" % sys.version_info[:2],
    "soabi": sysconfig.get_config_var("SOABI") or "",
    "platform": sysconfig.get_platform(),
    "glibc": glibc,
    "cache_tag": sys.implementation.cache_tag or "",
    "magic": list(importlib.util.MAGIC_NUMBER),
    "lib_name": os.path.basename(stdlib),
    "base_executable": os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable),
    "base_prefix": sys.base_prefix,
    "sites": site.getsitepackages([sys.base_prefix]),
    "standalone": bool(sysconfig.get_config_var("PYTHON_BUILD_STANDALONE")),
    "stdlib": sorted(names),
}))
