# SPDX-License-Identifier: Apache-2.0
"""CamVid, split by light."""
