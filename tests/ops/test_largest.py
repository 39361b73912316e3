import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core import targets
from nightjax.ops.largest import largest


@pytest.mark.parametrize("target", [*targets.FORMS])
@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("classes", [1, 2, 19, 40])
def test_it_is_the_arg_max_and_the_first_of_equals(target, axis, classes):
    values = np.random.default_rng(classes).integers(-3, 4, (2, classes, 5, classes)).astype(np.float32)
    label, top = targets.written_for(target, largest)(jnp.asarray(values), axis)
    np.testing.assert_array_equal(label, values.argmax(axis))
    np.testing.assert_array_equal(top, values.max(axis))
    assert label.dtype == np.uint8
