"""Finds the packages; everything else is declared in setup.cfg.

`find:` in setup.cfg cannot add `certtrain.conf`, whose files lie in conf/ beside the package, not inside it. Hydra
looks for plugins, as our launchers are, in the package `hydra_plugins`, to which every distribution may add a folder.
"""

from setuptools import find_packages, setup

OWN = find_packages(include=["certtrain", "certtrain.*"])
setup(packages=[*OWN, "certtrain.conf", "hydra_plugins.certtrain_launchers"])
