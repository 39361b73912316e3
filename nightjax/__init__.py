# SPDX-License-Identifier: Apache-2.0
"""nightjax: segmentation models that see at night, trained, adapted, evaluated and shipped with JAX."""

import sys

__version__ = "0.1.0"

if sys.argv[:1] == ["-m"]:  # ``python -m nightjax.VERB``, whose imports take seconds.
    from nightjax.core import interrupts

    interrupts.end_at_once()
