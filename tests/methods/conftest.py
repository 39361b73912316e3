"""A batch and networks small enough to test whole methods."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from nightjax.core.fused_init import fused_init
from nightjax.methods.parts.network import SegmentationNetwork
from nightjax.models import build_segmenter
from nightjax.models.hrda import HRDA
from nightjax.models.segmenter import Segmenter

SIZE = 64


class PlainBackbone(nn.Module):
    """Features at strides 4 and 8, without norms and dropout."""

    @nn.compact
    def __call__(self, x, train=False, deterministic=None):
        stage1 = jnp.tanh(nn.Conv(8, (4, 4), 4, name="first")(x))
        stage4 = nn.Conv(8, (2, 2), 2, name="last")(stage1)
        return {"stage1": stage1, "stage4": stage4}


class PlainHead(nn.Module):
    """Logits at stride 4."""

    @nn.compact
    def __call__(self, features, train=False, deterministic=None):
        return nn.Dense(19, kernel_init=nn.initializers.normal(1.0), name="classifier")(features["stage1"])


@pytest.fixture(scope="session")
def plain():
    """A network whose gradient is the mean over its examples."""
    return SegmentationNetwork(Segmenter(backbone=PlainBackbone(), head=PlainHead()))


@pytest.fixture(scope="session")
def plain_hrda():
    """The same in HRDA."""
    return SegmentationNetwork(
        HRDA(backbone=PlainBackbone(), head=PlainHead(), hrda_scale_attention=PlainHead()),
    )


@pytest.fixture(scope="session")
def small_resnet():
    """The smallest network with batch norms, dilations and dropout."""
    model = build_segmenter(
        "resnet_tiny",
        "fpn",
        backbone_depths=(1, 1, 1, 1),
        backbone_dilations=(1, 1, 2, 4),
        backbone_widths=(4, 4, 8, 8),
        backbone_stem_features=4,
        head_channels=8,
    )
    return SegmentationNetwork(model)


@pytest.fixture(scope="session")
def without_dropout(small_resnet):
    """`small_resnet`, in which nothing is random."""
    model = small_resnet.model
    return SegmentationNetwork(model.clone(head=model.head.clone(dropout=0.0)))


@pytest.fixture(scope="session")
def batch():
    """Two blocky source maps with small, dynamic and ignored classes, and noise images."""
    rng = np.random.RandomState(0)
    classes = np.array([[0, 2, 5, 6, 12, 13, 18, 255], [1, 2, 7, 10, 11, 14, 15, 17]])
    blocks = np.stack([rng.permutation(np.repeat(row, 8)).reshape(8, 8) for row in classes])
    label = np.kron(blocks, np.ones((1, SIZE // 8, SIZE // 8), np.int64)).astype(np.uint8)

    def image():
        return jnp.asarray(rng.randint(0, 256, (2, SIZE, SIZE, 3)), jnp.uint8)

    return {
        "source": {"image": image(), "label": jnp.asarray(label)},
        "target": {
            "image": image(),
            "reference": image(),
            "flow": jnp.asarray(rng.randn(2, SIZE, SIZE, 2), jnp.float32),
            "flow_valid": jnp.asarray(rng.rand(2, SIZE, SIZE) < 0.8),
        },
    }


@pytest.fixture(scope="session")
def make_state():
    """``make_state(method, batch, step=0)``: the first state, its student moved off the copies."""

    def make(method, batch, step=0):
        state = jax.jit(fused_init(method.init))(jax.random.key(0), batch)
        student = jax.tree.map(lambda x: x * 1.1 + 0.01, state.params["student"])
        return state.replace(params={"student": student}, step=jnp.int32(step))

    return make
