# SPDX-License-Identifier: Apache-2.0
"""TFDS builder: Nighttime Driving."""
