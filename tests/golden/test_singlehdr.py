"""SingleHDR against the official networks on TensorFlow, and our formulas against the golden README's NumPy ones.

Tolerance 1e-4 for the networks, 1e-5 for formulas.
"""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.interop import singlehdr as weights
from nightjax.models import singlehdr
from tests.helpers.golden import number, sizes


@pytest.fixture(scope="module")
def formulas(golden):
    return golden("nightlab", "singlehdr_formulas")


@pytest.fixture(scope="module")
def official_keys(golden):
    found = golden.official_names("nightlab")
    return {name: tuple(shape) for key, names in found.items() if key.startswith("singlehdr") for name, shape in names}


@pytest.fixture(scope="module")
def template():
    curves = {"g0": jnp.zeros(2), "hinv": jnp.zeros((11, 2))}
    return jax.eval_shape(singlehdr.SingleHDR().init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)), curves)


def recipe_weight(name, shape, seed):
    """The README's recipe for TensorFlow's names and layouts, float32."""
    rng = np.random.RandomState((zlib.crc32(name.encode()) + seed) % 2**32)
    if name.endswith("moving_mean"):
        value = 0.1 * rng.randn(*shape)
    elif name.endswith("moving_variance"):
        value = 0.8 + 0.4 * rng.rand(*shape)
    elif len(shape) == 4:
        value = rng.randn(*shape) * np.sqrt(1 / np.prod(shape[:3]))
        if "decoder" in name and "fuse" in name:
            value *= 0.05
            for i in range(shape[3]):
                value[0, 0, i, i] += 1
                value[0, 0, i + shape[3], i] += 1
    elif len(shape) == 2:
        value = rng.randn(*shape) * np.sqrt(1 / shape[0])
    elif name.endswith("gamma"):
        value = 1 + 0.1 * rng.randn(*shape)
    else:
        value = 0.1 * rng.randn(*shape)
    return value.astype(np.float32)


def close(actual, expected, tolerance=1e-5, name=""):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance, err_msg=name)


def test_formulas(formulas):
    file = formulas
    raw = file["g0"] + file["curve_weights"] @ file["hinv"]
    close(raw, file["curve_raw"])
    close(singlehdr.monotone(jnp.asarray(raw)), file["curve_monotone"])
    close(singlehdr.monotone(jnp.asarray(file["increase_in"])), file["increase_out"])
    close(singlehdr.apply_curve(jnp.asarray(file["ldr"]), jnp.asarray(file["curve_monotone"])), file["linear"])
    image = jnp.asarray(file["feat_image"])
    close(singlehdr.sobel(image), file["sobel6"])
    histograms = sizes(file, r"hist(\d+)")
    assert histograms
    for name, bins in histograms.items():
        close(singlehdr.soft_histogram(image, bins), file[name])
    close(singlehdr.highlight_mask(jnp.asarray(file["alpha_in"])), file["alpha"])
    close(singlehdr.tone_map(jnp.asarray(file["hdr"])[None])[0], file["mu_law_scaled_mean_half"])


def test_resizing_and_padding(formulas):
    file = formulas
    small = jnp.asarray(file["legacy_bilinear_in"])
    close(singlehdr.double_corner(small), file["legacy_bilinear_x2"])
    assert np.abs(singlehdr.double_corner(small) - file["half_pixel_bilinear_x2"]).max() > 1e-3
    for name, border in sizes(file, r"pad_symmetric(\d+)").items():
        close(np.pad(file["pad_in"], ((border, border), (border, border), (0, 0)), mode="symmetric"), file[name])


def test_published_checkpoints_fit(official_keys, template):
    state = {name: np.zeros(shape, np.float32) for name, shape in official_keys.items()}
    weights.from_official(state, template)
    used = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(template))
    assert used == sum(int(np.prod(shape)) for shape in official_keys.values())
    del state["Refinement_Net/conv2d_7/bias"]
    with pytest.raises(UserError, match="refinement/conv2d_7/bias"):
        weights.from_official(state, template)


def test_trainable_parameters(template):
    count = {
        part: sum(int(np.prod(x.shape)) for x in jax.tree.leaves(tree)) for part, tree in template["params"].items()
    }
    assert count == {
        "dequantization": 1_999_779,
        "refinement": 1_266_947,
        "linearization": 1_200_971,
        "hallucination": 24_569_118,
    }


@pytest.mark.slow
def test_pipeline(golden, formulas, official_keys, template):
    file = golden("nightlab", "singlehdr_pipeline_recipe")
    seed = number(file["base_seed"])
    state = {name: recipe_weight(name, shape, seed) for name, shape in official_keys.items()}
    variables = weights.from_official(state, template)
    model, x = singlehdr.SingleHDR(), jnp.asarray(file["x"])
    outputs = jax.jit(model.apply)(variables, x, {name: formulas[name] for name in ("g0", "hinv")})
    pairs = {
        "dequantized": np.clip(file["C_unclipped"], 0, 1),
        "curve": file["inverse_curve"],
        "linear": file["B"],
        "hallucinated": file["hallucination"],
        "filled": file["A"],
        "hdr": file["final"],
    }
    for name, expected in pairs.items():
        close(outputs[name], expected, 1e-4, name)
