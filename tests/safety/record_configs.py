"""Records every resolved config: each file in ``configs/`` by benchmark and by argument, as it stands.

    python tests/safety/record_configs.py tests/golden/configs.json.gz

It reads the checkout that it lies in, wherever nightjax is installed from.

The tables below say what is recorded. They are plain data and name nothing of the library on purpose: after a renaming
of arguments or files only they change. What a config reads from disk (runs, weights) is made in a temporary folder,
whose place in the record is ``<TMP>``. The record holds the flattened config by dotted key, or the text of the user's
mistake.
"""

import contextlib
import gzip
import io
import json
import os
import pathlib
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

BENCHMARKS = (
    "nightstreet",
    "nightstreet_tiny",
    "nightstreet_large",
    "camvid_day_to_dusk",
    "cityscapes_to_dark_zurich",
    "cityscapes_to_nighttime_driving",
    "cityscapes_to_acdc",
    "cityscapes_to_acdc_fog",
    "cityscapes_to_acdc_night",
    "cityscapes_to_acdc_rain",
    "cityscapes_to_acdc_snow",
    "cityscapes_to_nightcity",
    "bdd100k",
    "bdd100k_day_to_night",
    "gta5_to_cityscapes",
    "synthia_to_cityscapes",
    "nightcity",
    "nightcity_plus",
    "nightcity_with_cityscapes",
    "folder",
)

MODELS = (
    "tiny",
    "resnet18",
    "deeplab",
    "deeplab50",
    "daformer",
    *(f"daformer_b{i}" for i in range(6)),
    "segformer",
    *(f"segformer_b{i}" for i in range(6)),
    "mmseg_segformer",
    "hrda",
    "deeplabv3plus",
    "upernet_swin_t",
    "upernet_swin_b",
    "pspnet",
    "deeplab_multi",
    "refinenet",
    "panoptic_fpn",
    "panoptic_fpn_tiny",
    "dinov2_l_reg",
    "vit_tiny",
    "nonexistent",
)

STEPS = ("steps=1", "steps=7", "steps=400", "steps=2000", "steps=60000", "steps=0", "steps=x")
SHARED = (
    *(f"model={name}" for name in MODELS),
    *STEPS,
    "input=torchvision",
    "input=caffe",
    "input=x",
    "exposure=0",
    "exposure=1",
)
TUNE = ("tune=full", *(f"model=vit_tiny,tune={name}" for name in ("adapters", "norms", "head", "x")), "tune=adapters")
PHOTOMETRIC = ("photometric=0", "photometric=1", "photometric=2")
MASKING = (
    *(f"masking={name}" for name in ("none", "auto", "target", "source", "both", "x")),
    "masking=auto,mask_ratio=0.5,mask_block=16",
    "mask_ratio=0.5",
    "masking=target,mask_ratio=2",
)
MISTAKES = ("data=nonexistent", "nonexistent=1", "model")

DZ = "data=cityscapes_to_dark_zurich"
ACDC = "data=cityscapes_to_acdc_night"
NEXET = "unlabeled=nexet/night,split=train,teacher=runs/first"
MATCHER = "aligner=uawarpc,matcher=pretrained/uawarpc"
MATCHER_RUN = "aligner=uawarpc,matcher=<TMP>/uawarpc"

CONFIGS = {
    "supervised.py": {
        "on": ("", DZ, "data=nightcity_plus"),
        "arguments": (
            *SHARED,
            *PHOTOMETRIC,
            "train_on=source",
            "train_on=oracle",
            "train_on=x",
            "relight=1",
            "relight=2",
            "joint=1",
        ),
        "more": (
            *(f"data={name},joint=1" for name in BENCHMARKS),
            *(f"data={name},train_on=oracle" for name in BENCHMARKS),
            *(
                f"data=nightcity_plus,model={name},relight=1,joint=1"
                for name in ("deeplabv3plus", "upernet_swin_t", "upernet_swin_b")
            ),
            "data=nightcity,model=deeplabv3plus,photometric=1",
            "data=nightcity_with_cityscapes,model=upernet_swin_b,steps=200",
            "data=nightcity_with_cityscapes,model=deeplabv3plus,relight=1",
            f"{DZ},model=pspnet,steps=150000",
            "relight=1,joint=1,exposure=1",
            "train_on=oracle,relight=1,photometric=1",
            "model=deeplabv3plus",
            "data=gta5_to_cityscapes,model=hrda",
            "data=nightcity,model=hrda",
        ),
    },
    "dacs.py": {
        "on": ("", DZ, "data=gta5_to_cityscapes"),
        "arguments": (*SHARED, *PHOTOMETRIC, *MASKING),
        "more": (
            f"{ACDC},model=hrda",
            "data=synthia_to_cityscapes,model=hrda,photometric=1",
            "exposure=1,photometric=1,steps=200",
            f"{DZ},exposure=1,input=caffe,model=deeplab",
            *TUNE,
        ),
    },
    "mic.py": {
        "on": ("", DZ, "data=gta5_to_cityscapes"),
        "arguments": (*SHARED, *PHOTOMETRIC, *MASKING),
        "more": (
            f"{ACDC},model=hrda",
            "data=cityscapes_to_acdc,model=hrda",
            "data=gta5_to_cityscapes,model=hrda,masking=none",
            "data=synthia_to_cityscapes,model=hrda",
            "exposure=1,photometric=1,steps=200",
        ),
    },
    "vfm_uda.py": {
        "on": ("", DZ, "data=gta5_to_cityscapes"),
        "arguments": (
            *STEPS,
            *TUNE,
            "model=dinov2_l",
            "exposure=1",
            "distance=1",
            "foundation=pretrained/dinov2_l_reg",
            "source_only=1",
            *(f"masking={name}" for name in ("none", "token", "block", "x")),
        ),
        "more": (
            f"{DZ},model=dinov2_l_reg,tune=adapters,source_only=1",
            "data=nightcity,source_only=1",
            "foundation=runs/start,source_only=1",
        ),
    },
    "distill.py": {
        "on": ("", DZ, "teacher=runs/first"),
        "arguments": (*STEPS, "model=fast", "model=tiny", "model=nonexistent", "exposure=1", "photometric=0"),
        "more": (f"{DZ},teacher=runs/first,model=daformer_b0",),
    },
    "self_supervised.py": {
        "on": ("", DZ, "data=camvid_day_to_dusk"),
        "arguments": (*STEPS, "model=dinov2_l", "model=vit_tiny", "model=tiny", "exposure=1"),
        "more": (),
    },
    "dsr_fpa.py": {
        "on": ("", DZ, ACDC),
        "arguments": (
            *SHARED,
            *PHOTOMETRIC,
            *MASKING,
            *(f"parts={name}" for name in ("none", "dsr", "fpa", "both", "refign", "x")),
            *(f"aligner={name}" for name in ("none", "uawarpc", "true_flow", "x")),
            *(f"mem={name}" for name in ("80", "48", "24", "11", "x")),
            MATCHER,
            MATCHER_RUN,
            "matcher=pretrained/uawarpc",
        ),
        "more": (
            *(f"{DZ},{MATCHER},model={name}" for name in ("hrda", "deeplab", "refinenet", "daformer", "daformer_b0")),
            *(f"{DZ},{MATCHER},model={name},parts=refign" for name in ("hrda", "daformer", "deeplab")),
            *(f"{DZ},{MATCHER},model=hrda,mem={gb}" for gb in (80, 48, 24, 11)),
            *(f"{ACDC},{MATCHER},model=hrda,parts={name}" for name in ("none", "dsr", "fpa", "both", "refign")),
            *(f"data=camvid_day_to_dusk,parts={name}" for name in ("none", "dsr", "fpa", "both", "refign")),
            f"data=camvid_day_to_dusk,{MATCHER}",
            f"data=gta5_to_cityscapes,{MATCHER}",
            "data=gta5_to_cityscapes,model=hrda,mem=11",
            "data=gta5_to_cityscapes,model=hrda,mem=11,masking=auto",
            f"data=nightstreet_tiny,{MATCHER_RUN},parts=dsr",
            f"{DZ},{MATCHER},steps=10000",
            "exposure=1,photometric=1,parts=dsr,steps=200",
        ),
    },
    "t2s_da.py": {
        "on": ("", DZ, "data=gta5_to_cityscapes"),
        "arguments": (
            *SHARED,
            *PHOTOMETRIC,
            *MASKING,
            *(f"mode={name}" for name in ("uda", "dg", "x")),
            *(f"preset={name}" for name in ("default", "u2pl", "x")),
            *(
                f"parts={name}"
                for name in ("none", "fda", "uniform", "full", "source_negatives", "untranslated", "real_target", "x")
            ),
            "style=style.npz",
        ),
        "more": (
            *(
                f"mode=dg,parts={name}"
                for name in ("none", "fda", "uniform", "full", "source_negatives", "untranslated", "real_target")
            ),
            "mode=dg,style=style.npz",
            "mode=dg,masking=target",
            "data=gta5_to_cityscapes,mode=dg,style=style.npz",
            "data=gta5_to_cityscapes,mode=dg,preset=u2pl",
            f"{DZ},preset=u2pl,parts=uniform",
            f"{DZ},model=hrda,parts=real_target",
            "data=nightcity,mode=dg",
        ),
    },
    "self_training.py": {
        "on": ("", "data=cityscapes_to_nighttime_driving", DZ),
        "arguments": (
            *SHARED,
            *PHOTOMETRIC,
            *(f"labeled={name}" for name in ("day", "night", "both", "x")),
            *(f"loss={name}" for name in ("ce", "focal", "combined", "x")),
            "night=translated/unit",
            "pseudo=pseudo",
            "zigzag=1488",
            "zigzag=0",
            "converted=converted/day",
            "labels=soft",
            "threshold=0.9",
            "unlabeled=nightstreet/tiny_pairs",
            "unlabeled=nightstreet/tiny_pairs,split=target_pairs",
            "unlabeled=nightstreet/tiny_pairs,teacher=runs/first",
            "unlabeled=nightstreet/tiny_pairs,split=target_pairs,teacher=runs/first",
            "unlabeled=nightstreet/tiny_pairs,split=target_pairs,teacher=runs/first,labels=soft,threshold=0.9",
            "unlabeled=nightstreet/tiny_pairs,split=target_pairs,teacher=runs/first,labels=x",
        ),
        "more": (
            *(f"night=translated/unit,labeled={name}" for name in ("day", "night", "both")),
            "night=translated/unit,pseudo=pseudo,loss=combined",
            "labeled=day,pseudo=pseudo,loss=focal",
            "data=cityscapes_to_nighttime_driving,night=translated/unit,pseudo=pseudo,loss=combined,zigzag=1488",
            f"data=cityscapes_to_nighttime_driving,{NEXET}@best,night=translated/unit",
            f"data=nightcity,{NEXET}",
        ),
    },
    "dannet.py": {
        "on": ("", DZ, ACDC),
        "arguments": (
            *SHARED,
            "photometric=1",
            *(
                f"without={name}"
                for name in (
                    "light",
                    "static",
                    "adversarial",
                    "light+static",
                    "light+static+adversarial",
                    "x",
                    "light+x",
                )
            ),
        ),
        "more": (
            *(f"{DZ},model={name},without=light" for name in ("pspnet", "deeplab", "refinenet")),
            f"{DZ},model=deeplab,steps=1000,input=caffe",
            "without=light,exposure=1",
        ),
    },
    "adaptsegnet.py": {
        "on": ("", DZ, "data=gta5_to_cityscapes"),
        "arguments": (
            *SHARED,
            "photometric=1",
            *(f"levels={name}" for name in ("1", "2", "3")),
            *(f"gan={name}" for name in ("vanilla", "least_squares", "x")),
            "levels=1,gan=least_squares",
            "levels=2,gan=least_squares",
        ),
        "more": (
            "data=gta5_to_cityscapes,model=deeplab_multi,levels=1",
            "data=gta5_to_cityscapes,model=deeplab,input=torchvision",
            "data=nightstreet,model=deeplab_multi,levels=2",
            "data=gta5_to_cityscapes,steps=1000,exposure=1",
        ),
    },
    "nightlab.py": {
        "on": ("", "data=nightcity_plus", "data=nightcity_with_cityscapes"),
        "arguments": (
            *SHARED,
            *PHOTOMETRIC,
            "relight=1",
            "joint=1",
            "stage=image",
            "stage=x",
            *(f"stage={name}" for name in ("regions", "detector", "hdm", "all")),
            *(
                f"stage={stage},start=<TMP>/{start}"
                for stage in ("regions", "detector", "hdm", "all")
                for start in ("image", "regions", "detector", "missing")
            ),
            *(f"stage=regions,start=<TMP>/image,tau={tau}" for tau in ("0.3", "0.4", "0.6", "0.01", "x")),
            *(f"stage=regions,start=<TMP>/image,hard={hard}" for hard in ("5+6+17", "val", "x", "99")),
            "stage=hdm,start=<TMP>/regions,hard=5+6+17",
            "stage=regions,start=<TMP>/image,relight=1",
        ),
        "more": (
            *(f"data={name},stage=regions,start=<TMP>/image,hard=5+6+17" for name in BENCHMARKS),
            *(f"data={name},stage=all,start=<TMP>/detector" for name in BENCHMARKS),
            *(f"data=nightcity_plus,model={name},relight=1,joint=1" for name in ("deeplabv3plus", "upernet_swin_b")),
            "data=nightcity_plus,model=upernet_swin_b,relight=1,joint=1,stage=regions,start=<TMP>/image",
            "data=nightcity_plus,stage=detector,start=<TMP>/regions,relight=1,joint=1",
            "relight=1,joint=1,stage=regions,start=<TMP>/image,steps=100",
        ),
    },
    "uawarpc.py": {
        "on": ("", DZ),
        "arguments": (*STEPS, "exposure=0", "exposure=1", "model=tiny"),
        "more": ("data=nightstreet_tiny,steps=50,exposure=1",),
    },
    "unit.py": {
        "on": ("", "data=nexet", DZ),
        "arguments": (
            *STEPS,
            "form=unit2018",
            "form=unit2017",
            "form=x",
            "vgg=VGG16.npz",
            "form=unit2017,vgg=VGG16.npz",
        ),
        "more": ("data=nexet,steps=100", "data=folder,vgg=VGG16.npz"),
        "data": ("nexet",),
    },
    "cyclegan.py": {
        "on": ("", "data=nightcity", DZ),
        "arguments": STEPS,
        "more": (),
    },
    "pix2pixhd.py": {
        "on": ("", "data=nightcity", "data=folder", DZ),
        "arguments": (
            *STEPS,
            "translates=label",
            "translates=image",
            "translates=x",
            "size=small",
            "size=full",
            "size=x",
            "vgg=VGG19.npz",
        ),
        "more": (
            *(f"data={name},translates=image" for name in BENCHMARKS),
            "data=folder,translates=image,size=full,vgg=VGG19.npz",
            "translates=image,size=full",
        ),
    },
}
"""File to the benchmarks ``on`` which each of its ``arguments`` is tried, to ``more`` combinations, and to ``data`` of
its own."""

SCORES = {
    "road": 90.0,
    "sidewalk": 60.0,
    "pole": 30.0,
    "traffic light": 20.0,
    "traffic sign": 45.0,
    "rider": 55.0,
    "bicycle": 35.0,
}
RUNS = {
    "uawarpc": "uawarpc.py:exposure=1,steps=100",
    "image": "nightlab.py:stage=image",
    "regions": "nightlab.py:stage=regions,start=<TMP>/image,hard=5+6+17",
    "detector": "nightlab.py:stage=detector,start=<TMP>/regions",
}
"""Runs that other configs start from, in the order in which they build on each other: name to config."""

EVALUATED = {
    "image": ("val_night", "nightcity_plus_val"),
    "regions": ("val_night_image_level", "nightcity_plus_val_image_level"),
    "detector": ("val_night_image_level", "nightcity_plus_val_image_level"),
}
"""Run to the sets it has `SCORES` of."""

TMP = "<TMP>"


def load(config: str) -> dict:
    """The resolved config of ``FILE.py:arguments`` as nested dicts.

    Raises:
        Mistake: what it says to the user.
    """
    from nightjax.core.errors import UserError
    from nightjax.run import settings

    try:
        return settings.load(f"configs/{config}").to_dict()
    except UserError as error:
        raise Mistake(str(error)) from error


class Mistake(Exception):
    """A config that the library refuses."""


def check_checkout() -> None:
    """Refuses to record another checkout than its own."""
    import nightjax

    if ROOT not in pathlib.Path(nightjax.__file__).resolve().parents:
        sys.exit(f"nightjax comes from {nightjax.__file__}, not from {ROOT}")


def recorded(config: str, folder: str) -> dict:
    """What is kept of one config: its flattened values, or its mistake; and what it printed, if anything."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            found = flat(load(config.replace(TMP, folder)))
    except Mistake as mistake:
        found = {"UserError": str(mistake)}
    if printed.getvalue():
        found["PRINTED"] = printed.getvalue()
    return json.loads(json.dumps(found).replace(folder, TMP))


def flat(tree: dict, prefix: str = "") -> dict:
    """Dotted key to value; empty sections stay as ``{}``."""
    found = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def make_runs(folder: str) -> None:
    """Folders that look like finished runs to the configs that read them."""
    for name, config in RUNS.items():
        place = pathlib.Path(folder, name)
        place.mkdir()
        (place / "config.json").write_text(json.dumps(load(config.replace(TMP, folder))))
        for evaluated in EVALUATED.get(name, ()):
            (place / "eval" / evaluated).mkdir(parents=True)
            (place / "eval" / evaluated / "0000100.json").write_text(json.dumps({"iou": SCORES}))


def combinations(file: str) -> list[str]:
    """Every ``FILE.py:arguments`` to record of one file, none twice."""
    table = CONFIGS[file]
    arguments = ["", *(f"data={name}" for name in (*BENCHMARKS, *table.get("data", ())))]
    arguments += [",".join(filter(None, (on, argument))) for on in table["on"] for argument in table["arguments"]]
    return [f"{file}:{argument}" for argument in dict.fromkeys((*arguments, *table["more"], *MISTAKES))]


def write(path: str, content: dict) -> None:
    """Gzipped JSON, the same bytes for the same content."""
    with (
        open(path, "wb") as file,
        gzip.GzipFile(fileobj=file, mode="wb", mtime=0, filename="", compresslevel=9) as packed,
    ):
        packed.write(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())


def main(output: str) -> None:
    """Records everything."""
    output = os.path.abspath(output)
    os.chdir(ROOT)
    check_checkout()
    if unknown := {path.name for path in pathlib.Path("configs").glob("[!_]*.py")} - set(CONFIGS):
        sys.exit(f"no table for {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory() as folder:
        make_runs(folder)
        found = {config: recorded(config, folder) for file in CONFIGS for config in combinations(file)}
    write(output, found)
    wrong = sum("UserError" in values for values in found.values())
    print(f"{len(found)} configs, {wrong} of them mistakes, {os.path.getsize(output) / 1e3:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1])
