"""Running the examples of the checkout as their readers do."""

import os
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


def run(case, *words, **variables):
    """Runs Python with these words in a directory of its own, and returns what it printed."""
    command = [sys.executable, *map(str, words)]
    environ = {**os.environ, **variables}
    done = subprocess.run(command, cwd=case.directory, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    case.assertEqual(done.returncode, 0, f"{words}: {done.stdout[-2000:]}{done.stderr[-6000:]}")
    return done.stdout


def spark_defaults(directory, settings):
    """A directory for SPARK_CONF_DIR with these properties."""
    conf = Path(directory, "spark-conf")
    conf.mkdir()
    (conf / "spark-defaults.conf").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    return str(conf)
