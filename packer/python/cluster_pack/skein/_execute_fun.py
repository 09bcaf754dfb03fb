"""Calls a pickled function: what services of existing code name as their module."""

import sys

from cluster_pack.runner import main

if __name__ == "__main__":
    main(sys.argv[1:])
