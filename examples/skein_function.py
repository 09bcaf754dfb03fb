"""A function of an interactive session, called in containers on YARN.

    pip install ./packer/python 'cluster-pack[skein]'
    HADOOP_CONF_DIR=/etc/hadoop/conf python examples/skein_function.py

The environment in which this runs is uploaded to the user's directory in HDFS: whole at first, afterwards what changed.
"""

import logging

import skein

from cluster_pack import yarn_launcher

LIMIT = 1000


def primes(text):
    """Runs on the cluster. What it needs of this file goes with it."""
    import sys

    found = [n for n in range(2, LIMIT) if all(n % d for d in range(2, int(n**0.5) + 1))]
    print(f"{text}: {len(found)} primes below {LIMIT}, found by {sys.executable}")


def main():
    logging.basicConfig(level=logging.INFO)
    with skein.Client() as client:
        app = yarn_launcher.submit_func(client, primes, ["hello"], name="primes", memory="512 MiB", num_containers=2)
        if not yarn_launcher.wait_for_finished(client, app, 1):
            raise SystemExit(f"{app} failed: yarn logs -applicationId {app}")
        for container, log in (yarn_launcher.get_application_logs(client, app, 2) or {}).items():
            print(container, log, sep="\n")


if __name__ == "__main__":
    main()
