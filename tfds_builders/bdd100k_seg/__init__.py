# SPDX-License-Identifier: Apache-2.0
"""TFDS builder: BDD100K semantic segmentation."""
