# SPDX-License-Identifier: Apache-2.0
"""Adds the files of ``configs/`` to the package; everything else is in ``setup.cfg``."""

from setuptools import find_packages, setup

# Installed as nightjax/_configs, where nightjax.core.config_files finds them: no package `configs` is installed.
setup(
    packages=[*find_packages(include=["nightjax*", "tfds_builders*"]), "nightjax._configs"],
    package_dir={"nightjax._configs": "configs"},
)
