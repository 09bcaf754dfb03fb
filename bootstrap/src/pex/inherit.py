"""Arranges sys.path as the runtime of PEX files does. Imported by a .pth file of the environment's site-packages."""
import os
import sys

INHERIT = "@INHERIT@"
VENV = "@VENV@" == "true"


def arrange():
    import site

    here = os.path.dirname(os.path.abspath(__file__))
    if INHERIT in ("Prefer", "Fallback", "System"):
        base = [path for path in site.getsitepackages([sys.base_prefix]) if os.path.isdir(path)]
        user = site.getusersitepackages()
        if os.path.isdir(user) and not sys.flags.no_user_site:
            base.insert(0, user)
        if INHERIT == "Prefer" and here in sys.path:
            sys.path.remove(here)
        if INHERIT == "Fallback" and not sys.flags.ignore_environment:
            entries = [os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
            for entry in entries:
                if entry in sys.path:
                    sys.path.remove(entry)
        for path in base:
            site.addsitedir(path)
        if INHERIT == "Fallback" and not sys.flags.ignore_environment:
            sys.path.extend(entries)
        if INHERIT == "Prefer":
            sys.path.append(here)
    for name in ("PEX_EXTRA_SYS_PATH", "__PEX_EXTRA_SYS_PATH__"):
        extra = [path for path in os.environ.get(name, "").split(os.pathsep) if path]
        at = len(sys.path) if VENV or here not in sys.path else sys.path.index(here)
        sys.path[at:at] = extra


arrange()
