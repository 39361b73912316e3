"""Supervised training: source-only, with exposure normalisation, with photometric augmentation, or the oracle.

    python -m nightjax.main --config=configs/supervised.py
    python -m nightjax.main --config=configs/supervised.py:train_on=oracle
    python -m nightjax.main --config=configs/supervised.py:exposure=1
    python -m nightjax.main --config=configs/supervised.py:photometric=1
"""

from configs import _base
from nightjax.core.config import parse_arg


def get_config(arg=""):
    """Arguments: data, model, train_on (source or oracle), exposure (0 or 1), photometric (0 or 1)."""
    args = parse_arg(arg, data="nightstreet", model="tiny", train_on="source", exposure="0", photometric="0")
    config = _base.get_base(args["data"], args["model"], steps=1200, batch=4)
    config.method = {
        "name": "supervised",
        "divisor": "valid",
        "input": {"exposure": 0.18 if args["exposure"] == "1" else 0.0},
        "photometric": {"jitter_strength": 0.4} if args["photometric"] == "1" else None,
    }
    config.optim = {"name": "adamw", "lr": 2e-3, "warmup": 100, "power": 0.9, "weight_decay": 0.01, "clip_norm": 1.0}
    if args["train_on"] == "oracle":
        config.data.streams = _base.oracle_streams(args["data"])
    else:
        del config.data.streams.target
    return config
