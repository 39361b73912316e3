"""Supervised training: source-only, with exposure normalisation, with photometric augmentation, or the oracle.

    python -m nightjax.main --config=configs/supervised.py
    python -m nightjax.main --config=configs/supervised.py:train_on=oracle
    python -m nightjax.main --config=configs/supervised.py:exposure=1
    python -m nightjax.main --config=configs/supervised.py:photometric=1
"""

from configs import _base
from nightjax.core.config import parse_arg
from nightjax.core.errors import UserError


def get_config(arg=""):
    """Arguments: those of `_base.ARGS`, train_on (source or oracle)."""
    args = parse_arg(arg, **_base.ARGS, train_on="source")
    config = _base.get_base(args, domains=("source",))
    config.method = {
        "name": "supervised",
        "input": _base.network_input(args),
        "class_weights": _base.class_weights(),
        "divisor": "all",
        "photometric": _base.photometric(args),
    }
    config.optim = _base.optim(args)
    if args["train_on"] == "oracle":
        config.data.streams = _base.oracle_streams(args["data"])
    elif args["train_on"] != "source":
        raise UserError(f"config argument train_on={args['train_on']!r} is unknown; choose source or oracle")
    return config
