"""UAWarpC: matching day with night without labels, to align the two in DSR+FPA (Refign, arXiv 2207.06825).

    python -m nightjax.main --config=configs/uawarpc.py
    python -m nightjax.match --workdir=runs/uawarpc
    python -m nightjax.main --config=configs/dsr_fpa.py:aligner=uawarpc,matcher=runs/uawarpc

On the embedded benchmark a tiny matcher from scratch, on its unlabelled pairs alone; the true flow is used to score it
only. A step takes about a second on two CPU cores. Its features are compared after their mean is taken off (ours):
before that, 1500 steps had taught nothing. With it, the error on its own random warps falls from 17 to 7 pixels and is
still falling at the end, but day and night are hardly matched yet (12.6 pixels, where no motion at all has 12.9): not
ready to align with. On other benchmarks (``data=cityscapes_to_dark_zurich``) Refign's network, which starts from
ImageNet's VGG-16 (``--config.train.init``); its features stay fixed. The authors trained on MegaDepth for 400,000 +
225,000 steps of 6 pairs. Their
published weights are the ones to use where they are at hand:

    python -m nightjax.convert --input=uawarpc.ckpt --config=configs/uawarpc.py:data=cityscapes_to_dark_zurich \\
        --output=pretrained/uawarpc
"""

from configs import _base
from nightjax.core.config import parse_arg


def get_config(arg=""):
    """Arguments: data, steps, exposure as in `_base.ARGS`."""
    args = _base.ARGS | parse_arg(arg, **{name: _base.ARGS[name] for name in ("data", "steps", "exposure")})
    small = args["data"] in _base.FROM_SCRATCH
    args["steps"] = args["steps"] or ("1500" if small else "225000")
    config = _base.get_base(args, domains=("target",))
    config.model = {"variant": "uawarpc_tiny" if small else "uawarpc", "dtype": "float32"}
    config.method = {
        "name": "uawarpc",
        "homography": 0.1 if small else 0.15,
        "input": _base.network_input(args),
        "visible_from": config.train.steps // 2,
    }
    if small:
        config.train.batch = 2
        config.optim = {
            "name": "adamw",
            "lr": 2e-3,
            "warmup": min(100, config.train.steps // 4),
            "power": 0.9,
            "weight_decay": 1e-4,
            "clip_norm": 1.0,
        }
    else:
        fixed = {"pattern": "^student/alignment_backbone/", "lr": 0.0}
        config.optim = {"name": "adam", "lr": 1e-4, "weight_decay": 4e-4, "groups": (fixed,)}
        config.train.batch = 6
    config.data.streams.target.fields = ("image", "reference")
    config.eval.sets = {}
    config.checkpoint.best = ""
    return config
