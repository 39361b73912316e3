"""DACS self-training (DAFormer's recipe, arXiv 2111.14887) on the embedded benchmark.

    python -m nightjax.main --config=configs/dacs.py
"""

from configs import _base
from nightjax.core.config import parse_arg


def get_config(arg=""):
    """Arguments: those of `_base.ARGS`."""
    args = parse_arg(arg, **_base.ARGS)
    config = _base.get_base(args)
    config.method = {"name": "dacs"} | _base.self_training(args)
    config.optim = _base.optim()
    config.data.streams.target.fields = ("image",)
    return config
