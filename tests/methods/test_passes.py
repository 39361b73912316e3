"""The student's passes under one gradient or one after another: the same step."""

import jax
import numpy as np
import pytest

from nightjax import methods
from nightjax.core.errors import UserError
from nightjax.core.optim import Optimizer
from nightjax.core.step import Training
from nightjax.methods.dacs import Dacs
from nightjax.methods.dsr_fpa import DsrFpa
from nightjax.methods.parts.masking import MaskedConsistency
from nightjax.methods.parts.pulling import Negatives, Pulling
from nightjax.methods.t2s_da import T2sDa
from nightjax.run import settings
from tests.helpers.methods import changed

SGD = Optimizer(name="sgd", lr=0.1, schedule="constant", momentum=0.9, weight_decay=0.0)
MASKING = MaskedConsistency(block=8)
PULL = Pulling(channels=6, queries=7, feature="stage1", negatives=Negatives(8), start_step=0)

PARTS = {
    Dacs: {"masking": MASKING},
    DsrFpa: {"alignment": None, "refinement": None, "masking": MASKING},
    T2sDa: {"pull": PULL, "masking": MASKING},
}
"""Method to the parts of it that has all its passes; DSR+FPA's alignment ties two of them."""


@pytest.mark.slow
@pytest.mark.parametrize("cls", PARTS)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_gradients_pass_by_pass(small_resnet, batch, make_state, cls, accumulate):
    method = cls(small_resnet, SGD, Training(10, accumulate=accumulate), **PARTS[cls])
    apart = changed(method, training__passes="apart")
    state = make_state(method, batch)
    one, scalars = jax.jit(method.train_step)(state, batch)
    two, others = jax.jit(apart.train_step)(state, batch)
    assert scalars.keys() == others.keys()
    for name, tree in {"state": (one, two), "scalars": (scalars, others)}.items():
        for (path, a), b in zip(jax.tree.leaves_with_path(tree[0]), jax.tree.leaves(tree[1]), strict=True):
            place = name + jax.tree_util.keystr(path)
            np.testing.assert_allclose(b, a, rtol=2e-5, atol=2e-6 * np.abs(a).max(initial=1e-3), err_msg=place)


def test_passes_that_do_not_come_apart():
    """What would change nothing is refused."""
    for name in ("supervised", "dsr_fpa"):
        config = settings.override(settings.load(f"{name}:data=nightstreet_tiny"), {"train.passes": "apart"})
        with pytest.raises(UserError, match="train.passes=apart has no effect"):
            methods.build(config)
    config = settings.override(config, {"method.alignment": None})
    assert len(methods.build(config).passes) == 2
