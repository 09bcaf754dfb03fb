"""Skein services: applications on YARN."""

import sys

from cluster_pack.skein import skein_launcher

# The name under which existing code imports it.
sys.modules["cluster_pack.skein.yarn_launcher"] = skein_launcher
yarn_launcher = skein_launcher
