"""A network as what formats are written from."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.shipping.network import Network, resize_bytes


@pytest.mark.parametrize(
    "sizes", [((54, 96), (32, 48)), ((20, 30), (96, 64)), ((64, 96), (32, 48)), ((33, 47), (33, 31))]
)
def test_bytes_are_resized_as_opencv_does(sizes):
    before, after = sizes
    images = np.random.default_rng(0).integers(0, 256, (2, *before, 3), np.uint8)
    expected = [cv2.resize(image, after[::-1], interpolation=cv2.INTER_LINEAR) for image in images]
    np.testing.assert_array_equal(resize_bytes(images, after), expected)


def colors(variables, image):
    """Three classes: which channel is brightest, at half the size."""
    return variables["gain"] * image[:, ::2, ::2].astype(jnp.float32)


@pytest.mark.parametrize("input_size", [(16, 24), (8, 12)])
def test_layouts_and_outputs_are_of_one_network(input_size):
    image = np.random.default_rng(1).integers(0, 256, (2, 16, 24, 3), np.uint8)
    planes = image.transpose(0, 3, 1, 2).astype(np.float32)
    variables = {"gain": np.float32(0.1)}

    def run(given, **options):
        network = Network(colors, variables, (16, 24), input_size, **options)
        return jax.jit(network)(variables, given)

    label, confidence = run(image)
    assert label.shape == (2, 16, 24) and label.dtype == np.uint8 and confidence.dtype == np.float32
    again, _ = run(planes, layout="nchw")
    (logits,) = run(image, outputs="logits")
    (moved,) = run(planes, layout="nchw", outputs="logits")
    assert logits.shape == (2, input_size[0] // 2, input_size[1] // 2, 3)
    np.testing.assert_allclose(moved, np.moveaxis(logits, -1, 1), atol=0.11)  # A resized byte may be rounded otherwise.
    assert (again == label).mean() > 0.97
    ours, sure, scores = Network(colors, variables, (16, 24), input_size).reference()(image)
    np.testing.assert_array_equal(ours, label)
    np.testing.assert_allclose(sure, confidence, rtol=1e-5)
    np.testing.assert_array_equal(scores, logits)


def test_any_batch_is_a_symbol():
    network = Network(colors, {}, (16, 24), (16, 24))
    assert str(network.image().shape) == "(batch, 16, 24, 3)"
    assert Network(colors, {}, (16, 24), (16, 24), 2, "nchw").image().shape == (2, 3, 16, 24)
