"""What the recipes of the self-training methods (DACS, DSR+FPA, T2S-DA) have in common."""

from nightjax.core.errors import choose
from nightjax.zoo import optimizers, recipes
from nightjax.zoo.benchmarks import BENCHMARKS
from nightjax.zoo.models import MODELS

TOY = recipes.toy(
    {},
    changes={
        "method.loss.class_weights": "root_inverse",
        "method.feature_distance": None,
        "method.teacher.decay": 0.99,
    },
)
"""Within a short run from scratch there is no pretrained network to stay close to, so there is no feature distance, and
the teacher follows faster."""

PAPER = recipes.Recipe({})
"""DAFormer's, but for the optimizer, which depends on the network: see `optimizer`."""

TRANSFORMERS = ("mit", "swin")


def common(data: str, photometric: bool) -> list[recipes.Changes]:
    """Changes by benchmark and argument.

    Args:
        data: key of `BENCHMARKS`.
        photometric: whether source images get the strong photometric augmentation of DACS.
    """
    top, bottom = choose(BENCHMARKS, data, "config argument data").get("dropped_rows", (0, 0))
    changes: list[recipes.Changes] = [{"method.pseudo_labels": {"ignore_top": top, "ignore_bottom": bottom}}]
    return changes + common_of_source(photometric)


def common_of_source(photometric: bool) -> list[recipes.Changes]:
    """The part of `common` that is about the source alone."""
    return [{"method.source_photometric": {}}] if photometric else []


def optimizer(model: str | None) -> dict:
    """DAFormer's optimizer for a network of `MODELS`; transformers have groups for their norms."""
    backbone = MODELS.get(model or "daformer", {}).get("backbone", "")
    return optimizers.DAFORMER_ADAMW if backbone.startswith(TRANSFORMERS) else optimizers.DAFORMER_CNN_ADAMW
