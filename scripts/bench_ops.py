# SPDX-License-Identifier: Apache-2.0
"""Times each form of the operations that come in several forms, and prints one table.

    python scripts/bench_ops.py
    python scripts/bench_ops.py --only='tiny maps' --dtype=bfloat16 --repeats=20

For every shape the forms run in turn, so that a disturbance of the machine hits all of them; the least time counts.
"forward" is the operation; "with gradients" adds the gradients of input and parameters for a given cotangent. The
forms of each target (nightjax.core.targets) are chosen from these numbers; the first line of the output says on which
device they were measured.
"""

import time
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
from absl import flags
from jax import lax

from nightjax.core import cli
from nightjax.core.config import choose
from nightjax.models import layers, norm
from nightjax.ops import resize

Case = tuple[str, dict[str, Callable], tuple]
"""Label of the shape, forms by name, and the shapes of the arguments."""


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    values = flags.FlagValues()
    flags.DEFINE_string("only", "", f"Operation to time; one of {', '.join(OPERATIONS)}.", flag_values=values)
    flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Compute type.", flag_values=values)
    flags.DEFINE_integer("repeats", 10, "Timed calls of each form.", lower_bound=1, flag_values=values)
    cli.parse(values, argv, __doc__)
    operations = {values.only: choose(OPERATIONS, values.only, "--only")} if values.only else OPERATIONS
    device = jax.devices()[0]
    where = f"{jax.device_count()} x {device.device_kind} ({device.platform})"
    print(f"jax {jax.__version__}, {where}, {values.dtype}")
    print(f"{'operation':<13}{'shape':<36}{'form':<15}{'forward ms':>11}{'with gradients ms':>19}")
    for name, cases in operations.items():
        for label, forms, shapes in cases():
            for form, forward, both in measure(forms, shapes, values.dtype, values.repeats):
                print(f"{name:<13}{label:<36}{form:<15}{forward:>11.2f}{both:>19.2f}", flush=True)


def measure(forms, shapes, dtype, repeats) -> list[tuple[str, float, float]]:
    """Least milliseconds of each form: (name, forward, forward with gradients)."""
    keys = jax.random.split(jax.random.key(0), len(shapes) + 1)
    arguments = [jax.random.normal(k, shape, dtype) for k, shape in zip(keys[1:], shapes, strict=True)]
    timed = {}
    for name, form in forms.items():
        output = jax.eval_shape(form, *arguments)
        cotangent = jax.random.normal(keys[0], output.shape, output.dtype)
        timed[name, "forward"] = jax.jit(form), arguments
        timed[name, "both"] = jax.jit(_with_gradients(form)), [cotangent, *arguments]
    least = dict.fromkeys(timed, float("inf"))
    for turn in range(repeats + 1):
        for key, (function, inputs) in timed.items():
            start = time.perf_counter()
            jax.block_until_ready(function(*inputs))
            if turn:  # the first call compiles
                least[key] = min(least[key], 1e3 * (time.perf_counter() - start))
    return [(name, least[name, "forward"], least[name, "both"]) for name in forms]


def _with_gradients(form):
    def both(cotangent, *arguments):
        output, pull = jax.vjp(form, *arguments)
        return output, pull(cotangent)

    return both


def _convolution(form, stride, dilation, padding):
    return lambda x, kernel: form(x, kernel, stride, dilation, padding)


def pointwise() -> Iterator[Case]:
    for b, h, w, i, o, stride in [
        (2, 64, 128, 64, 256, 1),
        (2, 64, 128, 256, 64, 1),
        (2, 32, 64, 1024, 256, 1),
        (2, 64, 128, 256, 512, 2),
        (8, 64, 128, 32, 16, 1),
        (8, 32, 64, 32, 64, 2),
        (8, 32, 64, 64, 19, 1),
    ]:
        forms = {
            "library": _convolution(layers._library, stride, 1, (0, 0)),
            "dot": _convolution(layers._pointwise_dot, stride, 1, (0, 0)),
        }
        yield f"{b}x{h}x{w} {i}->{o} stride {stride}", forms, ((b, h, w, i), (1, 1, i, o))


def depthwise() -> Iterator[Case]:
    for b, h, w, c in [(2, 64, 64, 128), (2, 32, 32, 640), (2, 16, 16, 2048), (2, 64, 64, 512)]:
        forms = {
            "library": _convolution(layers._library_depthwise, 1, 1, (1, 1)),
            "shifted": _convolution(layers._shifted_depthwise, 1, 1, (1, 1)),
        }
        yield f"{b}x{h}x{w}x{c}", forms, ((b, h, w, c), (3, 3, 1, c))


def dilated() -> Iterator[Case]:
    for b, h, w, i, o, d in [
        (2, 32, 64, 256, 256, 2),
        (2, 32, 64, 256, 256, 4),
        (2, 32, 64, 512, 19, 12),
        (8, 16, 32, 96, 96, 4),
    ]:
        forms = {
            "library": _convolution(layers._library, 1, d, (d, d)),
            "nine dots": _convolution(_tap_dots, 1, d, (d, d)),
        }
        yield f"{b}x{h}x{w} {i}->{o} dilation {d}", forms, ((b, h, w, i), (3, 3, i, o))


def tiny_maps() -> Iterator[Case]:
    for b, side, i, o in [
        (12288, 9, 1, 8),
        (12288, 7, 8, 8),
        (12288, 5, 8, 4),
        (1536, 16, 1, 8),
        (4096, 9, 1, 32),
        (4096, 7, 32, 32),
    ]:
        forms = {
            "library": _convolution(layers._library, 1, 1, (0, 0)),
            "whole map": _convolution(layers._whole_map_dot, 1, 1, (0, 0)),
        }
        yield f"{b}x{side}x{side} {i}->{o}", forms, ((b, side, side, i), (3, 3, i, o))


def stem() -> Iterator[Case]:
    for b, h, w, o in [(2, 256, 512, 64), (8, 128, 256, 32)]:
        # The image is no argument: its gradient is never needed.
        image = jax.random.normal(jax.random.key(1), (b, h, w, 3))
        forms = {
            "library": lambda kernel, x=image: layers._library(x, kernel, 2, 1, (3, 3)),
            "space to depth": lambda kernel, x=image: _space_to_depth_stem(x, kernel),
        }
        yield f"{b}x{h}x{w} 7x7 3->{o} stride 2", forms, ((7, 7, 3, o),)


def pool() -> Iterator[Case]:
    for shape in [(2, 128, 256, 64), (8, 64, 128, 32)]:
        forms = {
            "reduce window": lambda x: lax.reduce_window(
                x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0))
            ),
            "slices": lambda x: layers.max_pool(x, 3, 2, 1),
        }
        yield "x".join(map(str, shape)) + " 3x3 stride 2", forms, (shape,)


def batch_norm() -> Iterator[Case]:
    """Batch statistics, scale, bias and ReLU."""
    for shape in [(2, 32, 64, 1024), (8, 64, 128, 32)]:
        zeros = jnp.zeros(shape[-1])
        forms = {
            "autodiff": lambda x, s, b, m=zeros: jax.nn.relu(norm._normalize_forward(x[:, None], s, b, m, 1e-5)[0][0]),
            "hand-written": lambda x, s, b, m=zeros: jax.nn.relu(norm._normalize(x[:, None], s, b, m, 1e-5)[0]),
        }
        yield "x".join(map(str, shape)) + " + ReLU", forms, (shape, shape[-1:], shape[-1:])


def upsample() -> Iterator[Case]:
    for b, h, w, c, k in [
        (2, 128, 128, 19, 4),
        (8, 32, 64, 19, 4),
        (8, 16, 32, 64, 2),
        (2, 64, 64, 256, 2),
    ]:
        size = (h * k, w * k)
        forms = {
            "library": lambda x, size=size: jax.image.resize(x, (x.shape[0], *size, x.shape[-1]), "bilinear"),
            "matrices": lambda x, size=size: _matrix_resize(x, size),
            "blend": lambda x, k=k: resize._blend(resize._blend(x, k, 2), k, 1),
        }
        yield f"{b}x{h}x{w}x{c} by {k}", forms, ((b, h, w, c),)


def _tap_dots(x, kernel, stride, dilation, padding):
    """A convolution as one matrix product a tap: the alternative to the library's dilated form."""
    taps = layers._taps(x, kernel.shape[:2], stride, dilation, padding, 0.0)
    return sum(jnp.dot(shifted, kernel[i, j]) for (i, j), shifted in taps)


def _matrix_resize(x, size):
    for axis in (1, 2):
        x = resize._apply(resize._bilinear_matrix(x.shape[axis], size[axis - 1], False), x, axis)
    return x


def _space_to_depth_stem(x, kernel):
    """The 7x7 stride-2 stem as a 4x4 stride-1 convolution of 2x2 blocks."""
    b, h, w, c = x.shape
    blocks = x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5).reshape(b, h // 2, w // 2, 4 * c)
    wide = jnp.pad(kernel, ((1, 0), (1, 0), (0, 0), (0, 0)))
    wide = wide.reshape(4, 2, 4, 2, c, -1).transpose(0, 2, 1, 3, 4, 5).reshape(4, 4, 4 * c, -1)
    return lax.conv_general_dilated(blocks, wide, (1, 1), ((2, 1), (2, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC"))


OPERATIONS = {
    "1x1": pointwise,
    "depthwise": depthwise,
    "dilated": dilated,
    "tiny maps": tiny_maps,
    "stem": stem,
    "max-pool": pool,
    "batch norm": batch_norm,
    "resize": upsample,
}

if __name__ == "__main__":
    cli.run(main)
