"""What tests of methods have in common: changing a setting of a part, and comparing trees."""

import dataclasses

import jax
import jax.numpy as jnp


def changed(part, **settings):
    """A copy of a method or part with settings replaced, those of its parts by ``<part>__<setting>``."""
    for key, value in settings.items():
        name, _, inner = key.partition("__")
        new = changed(getattr(part, name), **{inner: value}) if inner else value
        part = dataclasses.replace(part, **{name: new})
    return part


def distance(a, b):
    """The largest difference between two trees of one structure."""
    return max(float(jnp.abs(x - y).max()) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
