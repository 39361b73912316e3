"""Small networks of every kind, which every format has to hold."""

import jax
import jax.numpy as jnp
import numpy as np

from nightjax.models import build_segmenter
from nightjax.shipping.network import Network

KINDS = {
    "fpn": {"backbone": "resnet_tiny", "head": "fpn", "backbone_pool": "floor"},
    "deeplab_v2": {"backbone": "resnet_tiny", "head": "deeplab_v2"},
    "psp": {"backbone": "resnet_tiny", "head": "psp"},
    "daformer": {"backbone": "mit_tiny", "head": "daformer", "head_embed_dim": 8, "head_channels": 8},
    "hrda": {"backbone": "mit_tiny", "head": "daformer", "head_embed_dim": 8, "head_channels": 8, "hrda": True},
    "swin": {"backbone": "swin_tiny", "head": "upernet"},
    "fast_scnn": {"backbone": "fast_scnn", "head": "separable", "backbone_depths": (1, 1, 1)},
}
"""Name to the section of a config's model."""


def network(kind: str, batch: int | None = None) -> Network:
    """A network with drawn weights for images of 64x96."""
    module = build_segmenter(**KINDS[kind])
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 64, 96, 3)))
    variables = jax.tree.map(lambda x: rng.normal(0.05, 0.1, x.shape).astype(np.float32) ** 2, shapes)
    apply_fn = lambda variables, image: module.apply(variables, image.astype(jnp.float32) / 255)["logits"]
    return Network(apply_fn, variables, (64, 96), (64, 96), batch)
