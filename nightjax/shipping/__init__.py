# SPDX-License-Identifier: Apache-2.0
"""Trained networks as files for other programs, each with proof that it answers as nightjax does."""
