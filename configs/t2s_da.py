"""T2S-DA: pulling target to source, for adaptation and for generalisation (arXiv 2305.13752).

    python -m nightjax.main --config=configs/t2s_da.py

On the embedded benchmark, two CPU cores (results in `docs/results.md`). The structure is the paper's, the constants are
ours: neither the paper's body nor its training code could be read, so there is no published number to compare with
    here.

Night and synthetic-to-real adaptation, one GPU, 40,000 steps of 2 + 2 crops (hours and result on our side: unmeasured):

    python -m nightjax.main --config=configs/t2s_da.py:data=cityscapes_to_dark_zurich --config.data.manual_dir=DIR
    python -m nightjax.main --config=configs/t2s_da.py:data=cityscapes_to_acdc_night --config.data.manual_dir=DIR
    python -m nightjax.main --config=configs/t2s_da.py:data=gta5_to_cityscapes --config.data.manual_dir=DIR
    python -m nightjax.main --config=configs/t2s_da.py:data=synthia_to_cityscapes --config.data.manual_dir=DIR

Generalisation reads no target at all. With the style randomiser (``nightjax convert --style`` makes the file), or
without:

    python -m nightjax.main --config=configs/t2s_da.py:data=gta5_to_cityscapes,mode=dg,style=style.npz --config.data.manual_dir=DIR
    python -m nightjax.main --config=configs/t2s_da.py:mode=dg

The ablation is ``parts=none`` (DACS itself), ``uniform`` (the pull with equal class weights), ``full`` (and
re-weighting, the default), ``source_negatives``, ``untranslated`` (queries from the source as it is), ``real_target``
(queries from the target too) and ``fda`` (translated source images under cross-entropy, no pull).
"""

from configs import _base
from nightjax.core.config import choose, parse_arg
from nightjax.core.errors import UserError

MODES = {"uda": ("source", "target"), "dg": ("source",)}
"""To the domains that are read."""

PRESETS = {
    "default": {"temperature": 0.2, "weight": 0.1, "queries": 256, "negatives": 50},
    "u2pl": {"temperature": 0.5, "weight": 0.1, "queries": 256, "negatives": 50},
}
"""Spec 4.4: with U2PL's temperature the loss of a perfect separation is 0.65, with 0.2 it is 0.002."""

PARTS = {
    "none": ({}, {"weight": 0.0}),
    "fda": ({"translated_weight": 1.0}, {"weight": 0.0}),
    "uniform": ({}, {"exponent": 0.0}),
    "full": ({}, {}),
    "source_negatives": ({}, {"negatives_from": "source"}),
    "untranslated": ({"translation": "none"}, {}),
    "real_target": ({"real_target_queries": True}, {}),
}
"""To settings of the method and of its pulling loss."""

PARTS_OF_DG = ("none", "fda", "uniform", "full", "untranslated")


def get_config(arg=""):
    """Arguments: those of `_base.ARGS`, mode (uda or dg), preset, parts, translation (fda, style or none), style (a
    file)."""
    args = parse_arg(arg, **_base.ARGS, mode="uda", preset="default", parts="full", translation="", style="")
    domains = choose(MODES, args["mode"], "config argument mode")
    settings, pull = choose(PARTS, args["parts"], "config argument parts")
    if args["mode"] == "dg" and args["parts"] not in PARTS_OF_DG:
        known = ", ".join(PARTS_OF_DG)
        raise UserError(f"config argument parts={args['parts']} needs a target, and mode=dg has none; choose {known}")
    translation = settings.get("translation") or args["translation"] or ("style" if args["style"] else "fda")
    if (translation == "style") != bool(args["style"]):
        raise UserError(
            "translation=style and style=FILE, the randomiser's weights (nightjax convert --style), belong together"
        )
    pull = choose(PRESETS, args["preset"], "config argument preset") | pull
    if args["mode"] == "dg":
        pull |= {"negatives_from": "source"}
    if args["data"] in _base.FROM_SCRATCH:  # As little as a small network on a CPU needs.
        pull |= {"channels": 64, "queries": 64}
    config = _base.get_base(args, domains=domains)
    config.method = {
        "name": {"uda": "t2s_da", "dg": "t2s_dg"}[args["mode"]],
        "translation": translation,
        "fda_beta": 0.01,
        "pull": pull,
    }
    config.method.update(_base.self_training(args) | settings)
    config.optim = _base.daformer_optim(args, config.model.backbone)
    if "target" in config.data.streams:
        config.data.streams.target.fields = ("image",)
    if args["style"]:
        config.train.frozen = {"style": args["style"]}
    return config
