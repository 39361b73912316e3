# SPDX-License-Identifier: Apache-2.0
"""Times the levels of a run's network: milliseconds an image of its whole prediction, and of the image level alone.

    python scripts/bench_levels.py --workdir=runs/hdm --size=128,256
    python scripts/bench_levels.py --workdir=runs/hdm --size=512,1024 --batch=4 --repeats=20

The images are noise. What a detector finds in them costs nothing, since every region is computed whether it is found or
not. The least time counts.
"""

import functools
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from absl import flags

from nightjax.core import cli
from nightjax.core.errors import UserError
from nightjax.core.method import segments
from nightjax.inference.predict import parse_size
from nightjax.run import loaded


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "Folder of the run.", flag_values=values)
    flags.DEFINE_list("size", ["128", "256"], "height,width of the images.", flag_values=values)
    flags.DEFINE_integer("batch", 1, "Images at a time.", flag_values=values)
    flags.DEFINE_integer("repeats", 10, "Timed calls.", flag_values=values)
    cli.parse(values, argv, __doc__, required=("workdir",))
    run = loaded.load(values.workdir)
    method, variables = segments(run.method), run.variables
    height, width = parse_size(values.size, "size")
    if not method.predictions:
        raise UserError(f"{values.workdir}: {run.config.method.name} has one prediction only; give a run of nightlab")
    key = jax.random.key(0)
    image = jax.random.randint(key, (values.batch, height, width, 3), 0, 256).astype(jnp.uint8)
    label = jax.random.randint(key, (values.batch, height, width), 0, 19).astype(jnp.uint8)
    forms = {name: functools.partial(method.predict_as, name) for name in method.predictions}
    forms = {"own": lambda v, x, _: method.predict(v, x)} | forms
    device = jax.devices()[0]
    print(f"{values.workdir}, {values.batch} x {height}x{width}, {device.device_kind} ({device.platform})")
    print(f"{'prediction':<16}{'compile s':>10}{'ms an image':>13}")
    for name, form in forms.items():
        began = time.perf_counter()
        predict = jax.jit(form).lower(variables, image, label).compile()
        compiled, least = time.perf_counter() - began, float("inf")
        for _ in range(values.repeats):
            began = time.perf_counter()
            jax.block_until_ready(predict(variables, image, label))
            least = min(least, time.perf_counter() - began)
        print(f"{name:<16}{compiled:>10.1f}{1000 * least / values.batch:>13.2f}", flush=True)


if __name__ == "__main__":
    cli.run(main)
