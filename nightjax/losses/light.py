# SPDX-License-Identifier: Apache-2.0
"""DANNet's light loss: what keeps a relit image smooth, faithful and of one brightness.

Source: arXiv 2104.10834 section 3.2, ``L_TV``, ``L_exp_z`` and ``SSIM`` of ``network/relighting.py``.
Images are normalized, a relit image is the input plus the network's residual.
"""

import jax
import jax.numpy as jnp
import numpy as np

from nightjax.core.errors import UserError

FORMS = ("official", "paper")

_C1, _C2 = 0.01**2, 0.03**2


def light_loss(
    image: jax.Array,
    residual: jax.Array,
    brightness: jax.Array,
    *,
    form: str = "official",
    weights: tuple[float, float, float] = (10.0, 1.0, 1.0),
) -> dict[str, jax.Array]:
    """Light loss of the images of one domain.

    Args:
        image: [B, H, W, C] normalized input.
        residual: [B, H, W, C] output of the relighting network.
        brightness: scalar mean of the night images of this step, which every domain is pulled to; gets no gradient.
        form: ``"official"`` or ``"paper"``, see the terms.
        weights: of total variation, SSIM and exposure.

    Returns:
        Scalars float32: ``tv``, ``ssim``, ``exposure`` and their weighted sum ``total``.

    Raises:
        UserError: for an unknown form.
    """
    relit = image + residual
    tv = total_variation(residual, form=form)
    ssim = ssim_map(relit, image).mean()
    exposure = exposure_loss(relit, jax.lax.stop_gradient(brightness), form=form)
    total = weights[0] * tv + weights[1] * ssim + weights[2] * exposure
    return {"tv": tv, "ssim": ssim, "exposure": exposure, "total": total}


def total_variation(residual: jax.Array, *, form: str = "official") -> jax.Array:
    """Squared forward differences of the residual.

    Args:
        residual: [B, H, W, C]. Channels are summed, not averaged.
        form: ``"official"`` averages each direction over its own pixels and doubles the sum;
            ``"paper"`` divides both by the number of pixels.

    Returns:
        Scalar float32.

    Raises:
        UserError: for an unknown form.
    """
    _check(form)
    x = residual.astype(jnp.float32)
    batch, height, width, _ = x.shape
    rows = jnp.square(x[:, 1:] - x[:, :-1]).sum()
    columns = jnp.square(x[:, :, 1:] - x[:, :, :-1]).sum()
    if form == "paper":
        return (rows + columns) / (batch * height * width)
    return 2.0 / batch * (rows / ((height - 1) * width) + columns / (height * (width - 1)))


def exposure_loss(image: jax.Array, brightness: jax.Array, *, cell: int = 32, form: str = "official") -> jax.Array:
    """Distance of the mean of each square cell to a given brightness.

    Args:
        image: [B, H, W, C] relit images, at least one cell large.
        brightness: scalar, see ``light_loss``.
        cell: side of the square cells; rows and columns beyond the last whole cell do not count.
        form: ``"official"`` squares the distance, ``"paper"`` takes its absolute value.

    Returns:
        Scalar float32, the mean over cells.

    Raises:
        UserError: for an unknown form, or images smaller than one cell.
    """
    _check(form)
    batch, height, width, channels = image.shape
    rows, columns = height // cell, width // cell
    if rows == 0 or columns == 0:
        raise UserError(
            f"exposure loss: images of {height}x{width} are smaller than a cell of {cell} pixels; train on larger crops"
        )
    x = image[:, : rows * cell, : columns * cell].astype(jnp.float32)
    distance = x.reshape(batch, rows, cell, columns, cell, channels).mean(axis=(2, 4, 5)) - brightness
    return (jnp.abs(distance) if form == "paper" else jnp.square(distance)).mean()


def ssim_map(x: jax.Array, y: jax.Array) -> jax.Array:
    """Structural dissimilarity of 3x3 windows, ``clip((1 - SSIM) / 2, 0, 1)``.

    Args:
        x: [B, H, W, C].
        y: the same shape. The constants of SSIM are those of images in [0, 1].

    Returns:
        [B, H, W, C] float32 in [0, 1], 0 where x equals y. The border is reflected.
    """
    x, y = (jnp.pad(z.astype(jnp.float32), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect") for z in (x, y))
    mean_x, mean_y = _mean_3x3(x), _mean_3x3(y)
    var_x = _mean_3x3(x * x) - mean_x * mean_x
    var_y = _mean_3x3(y * y) - mean_y * mean_y
    covariance = _mean_3x3(x * y) - mean_x * mean_y
    above = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    below = (mean_x * mean_x + mean_y * mean_y + _C1) * (var_x + var_y + _C2)
    return jnp.clip((1.0 - above / below) / 2.0, 0.0, 1.0)


def _mean_3x3(x: jax.Array) -> jax.Array:
    """Mean of each whole 3x3 window of [B, H, W, C]: sums of shifted slices, rows first."""
    rows = x[:, :-2] + x[:, 1:-1] + x[:, 2:]
    return (rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]) / np.float32(9)


def _check(form: str) -> None:
    if form not in FORMS:
        raise UserError(f"light loss: unknown form '{form}'; use one of {', '.join(FORMS)}")
