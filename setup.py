"""Finds the packages; everything else is declared in setup.cfg.

`find:` in setup.cfg cannot add `certtrain.conf`, whose files lie in conf/ beside the package, not inside it.
"""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["certtrain", "certtrain.*"]), "certtrain.conf"])
