"""DSR+FPA (arXiv 2310.04747) on the embedded benchmark.

    python -m nightjax.main --config=configs/dsr_fpa.py
"""

from configs import _base
from nightjax.core.config import parse_arg


def get_config(arg=""):
    """Arguments: data, model, parts (both, dsr, fpa or none)."""
    args = parse_arg(arg, data="nightstreet", model="tiny", parts="both")
    config = _base.get_base(args["data"], args["model"], steps=1200, batch=4)
    dsr, fpa = args["parts"] in ("both", "dsr"), args["parts"] in ("both", "fpa")
    config.method = {
        "name": "dsr_fpa",
        "mask_mode": "closure" if dsr else "classmix",
        "bank": dsr,
        "refine": dsr and "reference" in config.data.streams.target.fields,
        "fpa": fpa,
        "fpa_start_step": round(0.24 * config.train.steps),
        "feature_weight": 0.0,
        "teacher_decay": 0.99,
    }
    config.optim = {"name": "adamw", "lr": 2e-3, "warmup": 100, "power": 0.9, "weight_decay": 0.01, "clip_norm": 1.0}
    return config
