"""Fréchet distance, Inception-v3 and resize rules against pytorch-fid, clean-fid and Pillow. Tolerances are the
README's."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.data import transforms
from nightjax.metrics import fid
from nightjax.models.backbones.inception import INPUT_SIZE, InceptionV3
from tests.helpers.hashed_weights import hashed, hashed_variables, hashed_weight


def test_the_hash_is_the_readmes():
    np.testing.assert_array_equal(hashed(np.arange(3), 1), [33350994, 2672842292, 127880910])
    first = hashed_weight("Conv2d_1a_3x3.conv.weight", (32, 3, 3, 3)).ravel()[:3]
    np.testing.assert_allclose(first, [-0.2148948, -0.3287159, 0.3141924], atol=1e-7)


def test_frechet_distance(golden):
    file = golden("unit_fid", "fid_frechet")
    cases = sorted({name.partition("/")[0] for name in file} - {"closed"})
    assert cases
    for case in cases:
        one, other = (fid.Statistics.of(file[f"{case}/f{i}"]) for i in (1, 2))
        for i, part in ((1, one), (2, other)):
            np.testing.assert_allclose(part.mean, file[f"{case}/mu{i}"], rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(part.covariance, file[f"{case}/sigma{i}"], rtol=1e-5, atol=1e-6)
        deficient = min(one.count, other.count) <= len(one.mean)
        if deficient:
            with pytest.warns(UserWarning, match="singular"):
                value = fid.frechet_distance(one, other)
        else:
            value = fid.frechet_distance(one, other)
        tolerance = 1e-5 if deficient else 1e-6
        np.testing.assert_allclose(value, file[f"{case}/fid"], rtol=tolerance, err_msg=case)
        np.testing.assert_allclose(value, file[f"{case}/fid_symmetric_eig"], rtol=tolerance, err_msg=case)
        itself = fid.frechet(one.mean, one.covariance, one.mean, one.covariance)
        assert abs(itself) < 1e-8 * np.trace(one.covariance), case
        np.testing.assert_allclose(
            itself, file[f"{case}/fid_self"], atol=tolerance * np.trace(one.covariance), err_msg=case
        )


V, W = np.array([3.0, 4.0]), np.array([1.0, 0.0])
CLOSED = {
    "scalar": ([0], [[1]], [3], [[4]]),
    "diag": (np.zeros(3), np.diag([1, 4, 9]), np.zeros(3), np.diag([4, 1, 16])),
    "noncommuting2": (np.zeros(2), [[2, 1], [1, 2]], np.zeros(2), np.diag([1, 3])),
    "rank1": (np.zeros(2), np.outer(V, V), np.zeros(2), np.outer(W, W)),
    "zero_cov": ([1, 2], np.zeros((2, 2)), [4, 6], 5 * np.eye(2)),
}
"""The spec's Gaussians by the name of their case. ``identity_shift_D`` says itself what it is."""


def test_frechet_closed_forms(golden):
    """Against pytorch-fid's value and the closed form's; cases of other names do not say what they are of."""
    file, checked = golden("unit_fid", "fid_frechet"), 0
    for name, values in file.items():
        case = name.removeprefix("closed/")
        shift = re.fullmatch(r"identity_shift_(\d+)", case)
        if shift:
            zeros, eye = np.zeros(int(shift[1])), np.eye(int(shift[1]))
            gaussians = zeros, eye, zeros + 1, eye
        elif case != name and case in CLOSED:
            gaussians = CLOSED[case]
        else:
            continue
        checked += 1
        np.testing.assert_allclose(np.full(2, fid.frechet(*gaussians)), values, rtol=1e-6, err_msg=case)
    assert checked


def test_resize(golden):
    file, settings = golden("unit_fid", "fid_resize"), golden.settings("unit_fid", "fid_resize")
    repeat = settings.get("repeat", 20)
    blocks = file["down_blocks"].repeat(repeat, 0).repeat(repeat, 1)
    noise = (hashed(np.arange(blocks.size), settings.get("noise_seed", 77)) >> np.uint32(25)).reshape(blocks.shape)
    images = {"up": file["up_img"], "down": (blocks // 2 + noise).astype(np.uint8)}
    for name, image in images.items():
        for rule, key in (("clean", "clean"), ("pytorch_fid", "legacy_pytorch")):
            sample = fid.resize(image, INPUT_SIZE, rule)[3::9, 3::9]
            np.testing.assert_allclose(sample, file[f"{name}_{key}"], rtol=1e-4, atol=2e-5)
        unit = (fid.network_input(image, INPUT_SIZE, "pytorch_fid")[3::9, 3::9] + 1) / 2
        np.testing.assert_allclose(unit, file[f"{name}_torch_bilinear01"], rtol=1e-4, atol=2e-5)
        # Rounded and antialiased, as some ports do, is neither rule; it is that of streams with ``antialias``.
        pillow = transforms.resize({"image": image}, INPUT_SIZE, antialias=True)["image"][3::9, 3::9]
        np.testing.assert_array_equal(pillow, file[f"{name}_pil_bilinear_u8"])
    assert np.abs(file["down_pil_bilinear_u8"] - file["down_legacy_pytorch"]).max() > 1


@pytest.mark.slow
def test_inception(golden):
    file = golden("unit_fid", "fid_inception")
    count = sum(name.startswith("img") for name in file)
    x = np.stack([fid.network_input(file[f"img{i}"], INPUT_SIZE, "pytorch_fid") for i in range(count)])
    model = InceptionV3()
    variables = hashed_variables(jax.eval_shape(model.init, jax.random.key(0), jnp.asarray(x)))
    features = jax.jit(model.apply)(variables, x)
    for name, value in file.items():
        if name.startswith("pool_") and name.count("_") == 2 and not name.endswith("note"):
            _, channels, i = name.split("_")
            np.testing.assert_allclose(features[f"pool{channels}"][int(i)], value, atol=1e-4, rtol=1e-5, err_msg=name)
