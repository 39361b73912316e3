"""DSR+FPA (arXiv 2310.04747) on the embedded benchmark.

    python -m nightjax.main --config=configs/dsr_fpa.py

The paper's ablation is ``parts=none`` (its baseline), ``dsr``, ``fpa`` and ``both``.
"""

from configs import _base
from nightjax.core.config import parse_arg
from nightjax.core.errors import UserError

PARTS = {"none": (False, False), "dsr": (True, False), "fpa": (False, True), "both": (True, True)}


def get_config(arg=""):
    """Arguments: those of `_base.ARGS`, parts, aligner (none or true_flow)."""
    args = parse_arg(arg, **_base.ARGS, parts="both", aligner="none")
    if args["parts"] not in PARTS:
        raise UserError(f"config argument parts={args['parts']!r} is unknown; choose one of {', '.join(PARTS)}")
    dsr, fpa = PARTS[args["parts"]]
    config = _base.get_base(args)
    target = config.data.streams.target
    config.method = {
        "name": "dsr_fpa",
        "mask_mode": "closure" if dsr else "classmix",
        "bank": dsr,
        "refine": dsr and "reference" in target.fields,
        "aligner": args["aligner"],
        "fpa": fpa,
        "fpa_start_step": round(0.24 * config.train.steps),
    } | _base.self_training(args)
    config.optim = _base.optim()
    if args["aligner"] == "true_flow":
        target.fields = (*target.fields, "flow", "flow_valid")
    return config
