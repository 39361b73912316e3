# SPDX-License-Identifier: Apache-2.0
"""What nightjax uses of ml_collections. The package has no types of its own, and what pyright infers for a key of a
config is every type that a key may have, None included."""

from . import config_dict as config_dict
from .config_dict import ConfigDict as ConfigDict
