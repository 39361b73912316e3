# SPDX-License-Identifier: Apache-2.0
"""Times our training step on a CPU against the same network's in PyTorch, checked equal first. Needs ``.[convert]``.

    python scripts/bench_torch.py
    python scripts/bench_torch.py --config=supervised:data=nightstreet,model=resnet18 --rounds=40

Both get the same weights, batch, loss and optimizer, in float32 and without dropout. Parameters are counted, and
logits, loss and gradients compared, before anything is timed. Then the programs take turns: one round is a few steps of
each, and the ratio of a round is that of neighbors in time, so that a busy machine is unfair to neither. PyTorch runs
eagerly, in both layouts of memory, with as many threads as there are cores. Networks are ResNets with the heads fpn and
deeplab_v2, and MiT with DAFormer's head.
"""

import os
from collections.abc import Sequence

import jax
from absl import flags

from nightjax.core import cli
from nightjax.core.errors import UserError

DEFAULT = tuple(f"supervised:data=nightstreet,model={name}" for name in ("tiny", "resnet18", "daformer_b0"))


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    values = flags.FlagValues()
    flags.DEFINE_multi_string(
        "config", list(DEFAULT), "Config with its arguments; may be repeated.", flag_values=values
    )
    flags.DEFINE_integer("rounds", 20, "Rounds of turns.", lower_bound=2, flag_values=values)
    flags.DEFINE_integer("steps", 3, "Steps of a turn.", lower_bound=1, flag_values=values)
    cli.parse(values, argv, __doc__)
    try:
        import torch
        from gpu_checks.beside_torch import compare
    except ImportError as error:
        raise UserError("this comparison needs PyTorch: pip install '.[convert]'") from error
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    print(
        f"jax {jax.__version__}, torch {torch.__version__}, {cores} cores, on {jax.devices()[0].platform}", flush=True
    )
    for path in values.config:
        print("\n".join(compare(path, values.rounds, values.steps)), flush=True)


if __name__ == "__main__":
    cli.run(main)
