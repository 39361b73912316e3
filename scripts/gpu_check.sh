#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Checks and times nightjax on one GPU in a few minutes, without a network; docs/speed.md says what the table holds.
#
#     bash scripts/gpu_check.sh --out=runs/gpu
#     bash scripts/gpu_check.sh --tiny --out=/tmp/tiny       # the same on a CPU, to see that it works
#
# It needs what nightjax needs, jax with CUDA, and for one of its parts torch; PYTHON names the interpreter.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export PYTHONPATH="$root:$root/scripts${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
exec "${PYTHON:-python3}" "$root/scripts/gpu_checks/main.py" "$@"
