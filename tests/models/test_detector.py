import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.models import detector


@pytest.mark.parametrize(
    ("size", "expected"),
    [((512, 1024), (666, 1332)), ((1024, 2048), (666, 1332)), ((720, 1280), (750, 1333)), ((800, 800), (800, 800))],
)
def test_input_size(size, expected):
    assert detector.proposal_input_size(size) == expected
    assert detector.proposal_input_size(size[::-1]) == expected[::-1]


def test_anchors_of_a_pyramid():
    every = detector.build_detector("resnet50").anchors((512, 1024))
    assert [len(level) for level in every] == [98304, 24576, 6144, 1536, 384]
    assert sum(map(len, every)) == 130_944


def parameters(shapes):
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(shapes))


@pytest.mark.parametrize(("features", "anchors", "expected"), [(256, 3, 593_935), (1024, 15, 9_515_083)])
def test_parameters_of_the_head(features, anchors, expected):
    head = detector.ProposalHead(features, anchors)
    assert parameters(jax.eval_shape(head.init, jax.random.key(0), jnp.zeros((1, 4, 4, features)))) == expected


def test_outputs_agree_with_the_anchors():
    model = detector.build_detector("tiny")
    size = (2 * model.multiple, 3 * model.multiple)
    shapes = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x), jnp.zeros((2, *size, 3)))
    every = model.anchors(size)
    for logits, code, anchors in zip(shapes[0]["logits"], shapes[0]["code"], every, strict=True):
        assert logits.shape == (2, len(anchors)) and code.shape == (2, *anchors.shape)


def test_padding_is_never_proposed():
    anchors = [jnp.array([[0.0, 0, 9, 9], [0, 0, 9, 9], [20, 20, 29, 29]])]
    choose = detector.Proposals(before=3, after=3, total=5, threshold=0.7)
    box, scores, valid = choose([jnp.array([1.0, 2.0, 0.0])], [jnp.zeros((3, 4))], anchors, (25, 40))
    assert valid.tolist() == [True, True, False]
    np.testing.assert_allclose(box[:2], [[0, 0, 9, 9], [20, 20, 29, 24]], atol=1e-4)
    np.testing.assert_allclose(scores[:2], jax.nn.sigmoid(jnp.array([2.0, 0.0])), rtol=1e-6)


def test_unknown_detector():
    with pytest.raises(UserError, match="did you mean 'resnet50'"):
        detector.build_detector("resnet5")
