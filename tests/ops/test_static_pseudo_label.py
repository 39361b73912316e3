"""DANNet's pseudo-label of a night image: analytic values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.ops.pseudo_label import blend_day_night, static_pseudo_label

ONES = jnp.ones(19)


def pixel(**values):
    """[1, 1, 1, 19] zeros with ``c<id>=value``."""
    out = np.zeros((1, 1, 1, 19), np.float32)
    for name, value in values.items():
        out[..., int(name[1:])] = value
    return jnp.asarray(out)


def test_trust_flips_strictly_above_the_threshold():
    above = np.nextafter(np.float32(0.4), np.float32(1))
    for value, share in ((0.4, 0.2), (above, 0.8), (-3.0, 0.2)):
        scores = blend_day_night(pixel(c2=value), pixel(c2=1.0), ONES)
        np.testing.assert_allclose(scores[0, 0, 0, 2], share * value + (1 - share), rtol=1e-6)


def test_moving_classes_follow_the_night_alone():
    weights = ONES.at[11].set(2.0)
    scores = blend_day_night(pixel(c11=9.0), pixel(c11=3.0), weights)
    assert scores[0, 0, 0, 11] == 6


def test_label_is_static_or_ignored():
    day = jax.random.normal(jax.random.key(0), (2, 8, 8, 19))
    night = jax.random.normal(jax.random.key(1), day.shape)
    for form in ("official", "paper"):
        label = np.asarray(static_pseudo_label(day, night, ONES, form=form))
        assert label.dtype == np.uint8
        assert set(np.unique(label)) <= {*range(11), 255}
        assert (label == 255).any() and (label < 11).any()


def test_weights_decide_between_close_classes():
    day, night = pixel(c0=2.0, c1=1.9), pixel()
    assert static_pseudo_label(day, night, ONES).item() == 0
    assert static_pseudo_label(day, night, ONES.at[1].set(1.1)).item() == 1
    assert static_pseudo_label(pixel(), pixel(c13=5.0), ONES).item() == 255


def test_paper_form_asks_the_day_only():
    day, night = pixel(c3=1.0), pixel(c5=50.0)
    assert static_pseudo_label(day, night, ONES, form="paper").item() == 3
    assert static_pseudo_label(day, night, ONES).item() == 5
    with pytest.raises(UserError, match="use 'official' or 'paper'"):
        static_pseudo_label(day, night, ONES, form="day")
