"""With the batch on four devices no compiled program here holds an all-gather or all-to-all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nightjax.losses.contrastive import fpa_loss
from nightjax.losses.feature import feature_distance
from nightjax.losses.segmentation import pixel_weighted_cross_entropy
from nightjax.ops import bank as banks
from nightjax.ops import color, mixing
from nightjax.ops.pseudo_label import confident_fraction, pixel_weight, pseudo_label, refine
from nightjax.ops.warp import flow_warp

B, H, W = 8, 16, 24


def select_and_mix(mode):
    def run(x):
        key = jax.random.key(0)
        mask = mixing.class_mask(x["label"], mixing.select_classes(key, x["label"], mode=mode))
        label, confidence = pseudo_label(jax.nn.softmax(x["logits"]))
        weight = mixing.mix(
            mask, jnp.ones(mask.shape), pixel_weight(confident_fraction(confidence, 0.1), mask.shape[1:])
        )
        return mixing.mix(mask, x["image"], x["other"]), mixing.mix(mask, x["label"], label), weight

    return run


def bank_round(x):
    bank = banks.push(banks.empty_bank(x["image"]), x["image"], x["label"])
    return banks.paste(bank, x["other"], x["label"], x["flow"][..., 0])


def warp_and_refine(x):
    warped, inside = flow_warp(x["logits"], x["flow"])
    return refine(x["logits"], warped, x["flow"][..., 0], inside)


def losses(x):
    def total(features, logits):
        domain = features, x["label"]
        loss = fpa_loss(domain, domain, (features[:, ::-1], x["label"]), class_weight="ds_inv")
        loss += feature_distance(features, x["frozen"], x["label"])
        return loss + pixel_weighted_cross_entropy(logits[:, ::2, ::2], x["label"], x["flow"][..., 0])

    return jax.value_and_grad(total, argnums=(0, 1))(x["features"], x["logits"])


PROGRAMS = {
    "mix_object_groups": select_and_mix("object_groups"),
    "mix_dacs": select_and_mix("dacs"),
    "bank": bank_round,
    "photometric": lambda x: color.photometric(x["image"], jax.random.key(1), blur_probability=1.0),
    "exposure": lambda x: color.normalize_exposure(x["image"]),
    "warp_and_refine": warp_and_refine,
    "losses": losses,
}


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return {
        "image": rng.random((B, H, W, 3), np.float32),
        "other": rng.random((B, H, W, 3), np.float32),
        "label": rng.choice([0, 5, 6, 12, 13, 18, 255], (B, H, W)).astype(np.uint8),
        "logits": rng.standard_normal((B, H, W, 19), np.float32),
        "flow": rng.random((B, H, W, 2), np.float32),
        "features": rng.standard_normal((B, 4, 6, 5), np.float32),
        "frozen": rng.standard_normal((B, 4, 6, 5), np.float32),
    }


@pytest.mark.parametrize("name", PROGRAMS)
def test_batch_is_not_gathered(batch, name):
    devices = jax.devices()
    if len(devices) < 4:
        pytest.skip("needs four devices")
    sharding = NamedSharding(Mesh(np.array(devices[:4]), ("data",)), PartitionSpec("data"))
    sharded = jax.tree.map(lambda x: jax.device_put(x, sharding), batch)
    compiled = jax.jit(PROGRAMS[name]).lower(sharded).compile()
    text = compiled.as_text()
    assert "all-gather" not in text and "all-to-all" not in text and "collective-permute" not in text
    expected = jax.jit(PROGRAMS[name])(jax.tree.map(jnp.asarray, batch))
    for one, many in zip(jax.tree.leaves(expected), jax.tree.leaves(compiled(sharded)), strict=True):
        np.testing.assert_allclose(one, many, rtol=1e-4, atol=1e-6)
