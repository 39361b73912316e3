# SPDX-License-Identifier: Apache-2.0
"""TFDS builder: NightStreet, drawn rather than downloaded."""
