# SPDX-License-Identifier: Apache-2.0
"""A run: its settings, its first state, and what it leaves on disk. Needs no data set."""
