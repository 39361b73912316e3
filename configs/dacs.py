"""DACS self-training, DAFormer's recipe (arXiv 2111.14887).

    python -m nightjax.main --config=configs/dacs.py

On the embedded benchmark, two CPU cores, about 5 minutes; results in `docs/results.md`. DAFormer's setting, one GPU,
40,000 steps of 2 + 2 crops; the authors report 53.8 mIoU on Dark Zurich test (hours and result on our side:
unmeasured):

    python -m nightjax.main --config=configs/dacs.py:data=cityscapes_to_dark_zurich --config.data.manual_dir=DIR
"""

from configs import _base
from nightjax.core.config import parse_arg


def get_config(arg=""):
    """Arguments: those of `_base.ARGS`."""
    args = parse_arg(arg, **_base.ARGS)
    config = _base.get_base(args)
    config.method = {"name": "dacs"} | _base.self_training(args)
    config.optim = _base.daformer_optim(args, config.model.backbone)
    config.data.streams.target.fields = ("image",)
    return config
