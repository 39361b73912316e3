# SPDX-License-Identifier: Apache-2.0
"""Parts that methods are made of: frozen dataclasses, each also the schema of its section of a config."""
