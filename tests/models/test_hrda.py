"""HRDA: windows, crops, fusion, both modes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from nightjax.core.errors import UserError
from nightjax.models import hrda
from nightjax.models.backbones.mit import VARIANTS, MiT
from nightjax.models.heads.daformer import DAFormerHead
from nightjax.models.heads.segformer import SegFormerHead


class Patches(nn.Module):
    """Mean of every 4x4 patch: a backbone whose fused output is known."""

    def __call__(self, x, *, train=False, deterministic=None):
        return {"stage1": nn.avg_pool(x, (4, 4), (4, 4))}


class Level(nn.Module):
    """Returns the features, or a constant, as logits."""

    constant: float | None = None

    def __call__(self, features, *, train=False, deterministic=None):
        x = features["stage1"]
        return x if self.constant is None else jnp.full_like(x, self.constant)


def linear_network(attention_logit):
    return hrda.HRDA(Patches(), Level(), Level(attention_logit))


def test_windows_cover_the_image_with_half_overlap():
    assert hrda.detail_windows((64, 96)) == [(y, x) for y in (0, 16, 32) for x in (0, 24, 48)]
    covered = np.zeros((1080, 1928), int)
    for y, x in hrda.detail_windows(covered.shape):
        covered[y : y + 540, x : x + 964] += 1
    assert covered.min() == 1 and covered.max() == 4


def test_drawn_offsets_are_multiples_of_8_and_stay_inside():
    keys = jax.random.split(jax.random.key(0), 400)
    offsets = np.asarray(jax.vmap(lambda key: hrda.draw_detail_offset(key, (64, 96)))(keys))
    assert set(offsets[:, 0]) == {0, 8, 16, 24} and set(offsets[:, 1]) == {0, 8, 16, 24, 32, 40}


def test_detail_crop_of_images_and_labels():
    label = jnp.arange(2 * 16 * 24).reshape(2, 16, 24)
    offset = jnp.asarray([3, 5])
    window = label[:, 3:11, 5:17]
    np.testing.assert_array_equal(hrda.detail_crop(label, offset), window)
    image = hrda.detail_crop(label[..., None], offset)
    np.testing.assert_array_equal(image[..., 0], window)


def test_crops_of_the_detail_window_of_a_pass():
    x = jnp.zeros((2, 32, 48, 3))
    label = jnp.arange(2 * 32 * 48).reshape(2, 32, 48)
    outputs = linear_network(0.3).apply({}, x, detail_offset=jnp.asarray([8, 16]))
    crop, nothing = hrda.detail_crops(outputs, label, None)
    np.testing.assert_array_equal(crop, label[:, 8:24, 16:40])
    assert nothing is None


def test_views_of_a_pass():
    model, key, size = linear_network(0.3), jax.random.key(3), (64, 96)
    np.testing.assert_array_equal(model.draw_view(key, size)["detail_offset"], hrda.draw_detail_offset(key, size))
    x = jax.random.normal(key, (2, *size, 3))
    context = model.apply({}, x, **model.context_view())["stage1"]
    np.testing.assert_array_equal(model.apply({}, x, method="backbone_features")["stage1"], context)
    assert not model.shares_pass


def test_overlapping_windows_keep_a_constant_image_constant():
    out = linear_network(0.3).apply({}, jnp.full((2, 32, 48, 3), 0.7))
    np.testing.assert_allclose(out["logits"], 0.7, rtol=1e-6)


def test_full_attention_shows_detail_and_none_shows_context():
    x = jax.random.normal(jax.random.key(0), (1, 32, 48, 3))
    detail = linear_network(100.0).apply({}, x)["logits"]
    np.testing.assert_allclose(detail, nn.avg_pool(x, (4, 4), (4, 4)), atol=1e-5)
    out = linear_network(-100.0).apply({}, x)
    context = hrda.resize(out["lr_logits"], (8, 12), align_corners=False)
    np.testing.assert_allclose(out["logits"], context, atol=1e-5)


def test_one_window_leaves_the_rest_to_context():
    x = jax.random.normal(jax.random.key(0), (1, 32, 48, 3))
    out = linear_network(100.0).apply({}, x, detail_offset=jnp.asarray([8, 16]))
    np.testing.assert_array_equal(out["detail_box"], [[8, 24, 16, 40]])
    patches = nn.avg_pool(x, (4, 4), (4, 4))
    np.testing.assert_allclose(out["hr_logits"][:, 0], patches[:, 2:6, 4:10], atol=1e-6)
    np.testing.assert_allclose(out["logits"][:, 3:5, 5:9], patches[:, 3:5, 5:9], atol=1e-5)
    context = hrda.resize(out["lr_logits"], (8, 12), align_corners=False)
    np.testing.assert_allclose(out["logits"][:, :, :3], context[:, :, :3], atol=1e-5)


def test_sides_must_be_multiples_of_8():
    with pytest.raises(UserError, match="multiples of 8, got 36x48"):
        linear_network(0.0).apply({}, jnp.zeros((1, 36, 48, 3)))


def test_parameter_names_and_outputs():
    model = hrda.HRDA(
        backbone=MiT(**VARIANTS["mit_tiny"]),
        head=DAFormerHead(num_classes=3, embed_dim=6, channels=8),
        hrda_scale_attention=SegFormerHead(num_classes=3, channels=6),
    )
    x = jnp.zeros((2, 64, 64, 3))
    out, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), x)
    assert set(variables["params"]) == {"backbone", "head", "hrda_scale_attention"}
    assert {name: value.shape for name, value in out.items()} == {
        "stage1": (2, 8, 8, 8),
        "stage2": (2, 4, 4, 8),
        "stage3": (2, 2, 2, 16),
        "stage4": (2, 1, 1, 24),
        "logits": (2, 16, 16, 3),
        "lr_logits": (2, 8, 8, 3),
        "hr_logits": (2, 9, 8, 8, 3),
        "attention": (2, 8, 8, 3),
        "detail_box": (9, 4),
    }


def test_examples_do_not_mix():
    x = jax.random.normal(jax.random.key(0), (2, 32, 48, 3))
    network = linear_network(0.3)
    both = network.apply({}, x)["logits"]
    np.testing.assert_allclose(both[1:], network.apply({}, x[1:])["logits"], atol=1e-6)


def test_offset_may_be_traced():
    x = jax.random.normal(jax.random.key(0), (1, 32, 48, 3))
    network = linear_network(0.3)
    run = jax.jit(lambda offset: network.apply({}, x, detail_offset=offset)["logits"])
    for offset in ([0, 0], [8, 16]):
        expected = network.apply({}, x, detail_offset=np.asarray(offset))["logits"]
        np.testing.assert_allclose(run(jnp.asarray(offset)), expected, atol=1e-6)
