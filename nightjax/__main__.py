# SPDX-License-Identifier: Apache-2.0
"""``python -m nightjax VERB ...`` is the same as ``nightjax VERB ...``."""

from nightjax.cli import main

if __name__ == "__main__":
    main()
