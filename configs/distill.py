# SPDX-License-Identifier: Apache-2.0
"""Distillation: a small real-time network learns from a trained one on unlabeled days and nights.

    python -m nightjax.main --config=configs/distill.py:teacher=runs/dsr_fpa --workdir=runs/fast

``teacher`` is a run of any method and any network with the same classes; its network is frozen, and no label is read.
The student is ``model=fast`` (Fast-SCNN, 1.1 million parameters) unless another network is named: ``model=tiny`` and
all others of ``nightjax list models`` work. The student sees its images in changed colors, the teacher as they are;
``photometric=0`` leaves them alone. Checkpoints hold the teacher's weights too; exports and predictions do not.

On NightStreet 1000 steps took 12 minutes on two busy CPU cores. From DSR+FPA's tiny network, with an mIoU of
31.9 +- 0.3 by night, the student learns to have 25.4 +- 0.3 in half its CPU time (three seeds). On real data:

    python -m nightjax.main --config=configs/distill.py:data=cityscapes_to_dark_zurich,teacher=runs/daformer \\
        --config.data.manual_dir=DIR

on one GPU, unmeasured too. The settings are ours; the soft targets are those of Hinton et al.
(arXiv 1503.02531) at temperature 1.
"""

import ml_collections

from nightjax.zoo import optimizers, recipes

METHOD = {"name": "distill"}
DOMAINS = ("source", "target")
RECIPES = {
    "toy": recipes.toy(METHOD, model="fast"),
    "paper": recipes.Recipe(METHOD, model="fast", optim=optimizers.SCRATCH_ADAMW, steps=80_000, batch=8),
}


def get_config(
    teacher: str = "",
    data: str = "nightstreet",
    model: str | None = None,
    steps: int | None = None,
    exposure: bool = False,
    photometric: bool = True,
) -> ml_collections.ConfigDict:
    """Arguments are described above."""
    changes = [{f"data.streams.{name}": {"fields": ("image",), "rare_class": None}} for name in DOMAINS]
    taught = {"train.frozen.teacher": teacher, "method.teacher.model": f"run:{teacher}:model"}
    changes.append(taught if teacher else {"method.teacher.model": {}})
    if not photometric:
        changes.append({"method.photometric": None})
    recipe = RECIPES[recipes.scale_of(data)]
    return recipes.make(recipe, data, DOMAINS, model=model, steps=steps, exposure=exposure, changes=changes)
