"""The check of a written program: what it measures, and what it refuses."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.classes import CITYSCAPES
from nightjax.core.errors import UserError
from nightjax.shipping import examples, parity
from nightjax.shipping.network import Network
from tests.helpers import toy

NETWORK = Network(lambda variables, image: variables * image.astype(jnp.float32), np.float32(0.1), (16, 24), (16, 24))
DRAWN = parity.drawn_examples((16, 24), 3)


def file(wrong_rows=0, error=0.0, **options):
    """A program that is right but for some rows and an error of its logits."""
    reference = NETWORK.reference()

    def program(image):
        label, confidence, _ = reference(image)
        label = label.copy()
        label[:, :wrong_rows] = (label[:, :wrong_rows] + 1) % 3
        return label, confidence + np.float32(error / 10)

    return parity.File("model", 7, program, lambda image: reference(image)[2] + error, **options)


def check(*files, examples=DRAWN, **limits):
    return parity.check(NETWORK, files, examples, parity.Limits(**limits))


def test_says_what_it_measured():
    found = check(file(error=0.5))
    assert found["images"] == 4 and found["of"] == "4 drawn color fields" and found["nightjax"]["ms"] > 0
    one = found["files"]["model"]
    assert one["label_agreement"] == 1 and one["bytes"] == 7 and one["ms"] > 0 and "miou" not in one
    assert one["largest_logit_difference"] == pytest.approx(0.5, abs=1e-5)
    assert one["largest_confidence_difference"] == pytest.approx(0.05, abs=1e-6)


def test_refuses_what_answers_differently():
    with pytest.raises(parity.ParityFailed, match=r"93\.75% of the pixels, and 99\.90% are asked for"):
        check(file(wrong_rows=1))
    assert check(file(wrong_rows=1, int8=True))["files"]["model"]["label_agreement"] == 0.9375
    with pytest.raises(parity.ParityFailed, match=r"90\.00% are asked for"):
        check(file(wrong_rows=2, int8=True))
    assert check(file(wrong_rows=2), agreement=0.5)
    with pytest.raises(parity.ParityFailed):
        check(file(wrong_rows=1, int8=True), agreement=0.95)
    broken = dataclasses.replace(
        file(), program=lambda image: (np.full((1, 16, 24), 2, np.uint8), np.ones((1, 16, 24)))
    )
    with pytest.raises(parity.ParityFailed):
        check(broken)


def test_labels_give_scores_before_and_after():
    truths = [NETWORK.reference()(image[None])[0][0].repeat(2, 0).repeat(2, 1) for image in DRAWN.images]
    labeled = dataclasses.replace(DRAWN, truths=truths)
    found = check(file(), examples=labeled)
    assert found["nightjax"]["miou"] == found["files"]["model"]["miou"] == 100
    with pytest.raises(parity.ParityFailed, match=r"nightjax 100\.00; at most 0\.5 points"):
        check(file(wrong_rows=1, int8=True), examples=labeled)
    assert check(file(wrong_rows=1, int8=True), examples=labeled, miou_loss=20.0)["files"]["model"]["miou"] < 100


def test_a_folder_of_images_or_a_labeled_one(tmp_path):
    root = toy.write_folder(tmp_path / "data", count=3)
    found = examples.examples(str(root), (16, 24), CITYSCAPES)
    assert found.of == "3 images of data, labeled" and len(found.truths) == 3 and found.truths[0].shape == toy.SIZE
    assert found.images[1].shape == (16, 24, 3)
    plain = examples.examples(str(root / "images"), (16, 24), CITYSCAPES)
    assert plain.of == "3 images of images" and not plain.truths
    assert len(examples.calibration(str(root / "images"), (8, 8))) == 3
    next((root / "labels").rglob("*.png")).unlink()
    assert not examples.examples(str(root), (16, 24), CITYSCAPES).truths
    for folder in (tmp_path / "none", root / "labels" / "empty"):
        folder.mkdir() if folder.name == "empty" else None
        with pytest.raises(UserError, match="no folder|holds no image"):
            examples.calibration(str(folder), (8, 8))


def test_labels_of_other_classes_are_refused(tmp_path):
    root = toy.write_folder(tmp_path / "data", count=1)
    other = dataclasses.replace(CITYSCAPES, names=("x", *CITYSCAPES.names[1:]))
    with pytest.raises(UserError, match="labels of other classes"):
        examples.examples(str(root), (16, 24), other)
