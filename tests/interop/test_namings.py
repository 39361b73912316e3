"""Every family of names on the official lists of names and shapes, in and out again."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.core.stacks import stacks_of
from nightjax.interop.convert import export_file, import_files
from nightjax.interop.namings import NAMINGS, lookup, one_network, recognize
from nightjax.interop.torch_weights import from_torch, named_leaves, to_torch
from nightjax.interop.weight_files import load_state_dict, save_state_dict
from nightjax.models import build_segmenter
from nightjax.models.backbones.mit import MiT
from nightjax.models.matcher import Matcher
from nightjax.models.relight import RelightNet
from nightjax.zoo.models import MODELS

MIT = {"dims": (8, 16, 40, 64), "depths": (1, 2, 3, 1)}
STACKS = stacks_of(MiT(**MIT), "backbone")
"""Of every MiT here; the other networks have no parameters at these paths."""


@pytest.fixture(scope="module")
def official(golden):
    """``official("dannet", ...)``: the list of names and shapes under these keys."""

    def load(system, *keys):
        found = golden.official_names(system)
        for key in keys:
            found = found[key]
        return dict(found)

    return load


TINY = {"backbone_widths": (2, 2, 4, 4), "backbone_depths": (1, 1, 1, 1), "backbone_stem_features": 2}
DANNET_NETWORKS = {
    "pspnet": MODELS["pspnet"],
    "deeplab": MODELS["deeplab_multi"],
    "refinenet": MODELS["refinenet"],
}
TINY_HEADS = {"pspnet": {"head_channels": 3, "auxiliary_channels": 2}, "refinenet": {"head_channels": 2}}


@functools.cache
def shapes_of(network, **options):
    """Shapes of our variables: a named network, or what `build_segmenter` makes of the options."""
    x = jnp.zeros((1, 64, 64, 3))
    if network == "relight":
        shapes = jax.eval_shape(RelightNet().init, jax.random.key(0), x)
        return {collection: {"relight": tree} for collection, tree in shapes.items()}
    if network == "matcher":
        return jax.eval_shape(Matcher().init, jax.random.key(0), x, x)
    model = build_segmenter(**(DANNET_NETWORKS.get(network, {}) | options))
    return jax.eval_shape(model.init, jax.random.key(0), x)


def random_state(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return {
        name: np.zeros((), np.int64) if name.endswith("num_batches_tracked") else rng.random(shape, np.float32)
        for name, shape in shapes.items()
    }


def assert_same(actual, expected):
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert actual[name].dtype == value.dtype and actual[name].shape == value.shape, name
        np.testing.assert_array_equal(actual[name], value, err_msg=name)


def round_trip(tmp_path, state, template, naming, missing=(), dropped=()):
    """Import finds the naming by itself; export gives the same file, but for what is dropped."""
    save_state_dict(tmp_path / "in.npz", state)
    imported = import_files([str(tmp_path / "in.npz")], template, STACKS, allow_missing=missing)
    assert f": {naming}, " in imported.notes[0]
    variables = jax.tree.map(
        lambda x: np.zeros(x.shape, x.dtype) if isinstance(x, jax.ShapeDtypeStruct) else x, imported.variables
    )
    export_file(str(tmp_path / "out.npz"), variables, naming, STACKS, allow_missing=missing)
    kept = {name: value for name, value in state.items() if not name.startswith(dropped)}
    assert_same(load_state_dict(tmp_path / "out.npz"), kept)
    return imported


def random_variables(template, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: rng.random(x.shape, np.float32), template)


def official_state(template, naming, seed=0):
    """Random weights of one of our models under a family's names."""
    return lookup(naming).to_official(to_torch(random_variables(template, seed), STACKS, counters=True))


LISTS = {
    "dannet_pspnet": ("pspnet", {}),
    "dannet_deeplab": ("deeplab", {}),
    "dannet_refinenet": ("refinenet", {}),
    "dlv2": ("", {"backbone": "resnet101_v1c_d8", "head": "deeplab_v2"}),
    "hrda": ("", {"backbone": "mit_b5", "head": "daformer", "hrda": True}),
    "refign": ("", {"backbone": "mit_b5", "head": "daformer", "hrda": True}),
    "mmseg": ("", {"backbone": "mit_b5", "head": "daformer"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("naming", LISTS)
def test_full_size_lists(official, naming):
    """Every official name and shape of the published networks fits, and is given back."""
    if naming.startswith("dannet"):
        shapes = official("dannet", naming)
    elif naming == "dlv2":
        shapes = official("dsr_fpa", "refign_naming", "deeplabv2_resnet101_v1c")
        shapes = {name: shape for name, shape in shapes.items() if name.startswith("backbone.")}
        shapes |= official("dsr_fpa", "mmseg_naming", "deeplabv2_resnet101_v1c.decode_head")
    else:
        shapes = official("dsr_fpa", "refign_naming", "mit_b5.backbone")
        decoder = {"hrda": "hrda_mit_b5.decode_head", "mmseg": "daformer_mit_b5.decode_head"}
        if naming in decoder:
            shapes |= official("dsr_fpa", "mmseg_naming", decoder[naming])
        else:
            shapes |= official("dsr_fpa", "refign_naming", "daformer_head")
            shapes |= official("dsr_fpa", "refign_naming", "hrda_scale_attention")
    network, options = LISTS[naming]
    state = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    template = shapes_of(network, **options)
    assert recognize(state, named_leaves(template, STACKS), "x")[0] == naming
    variables = from_torch(lookup(naming).to_ours(state), template, STACKS)
    back = lookup(naming).to_official(to_torch(variables, STACKS, counters=True))
    assert {name: list(value.shape) for name, value in back.items()} == shapes


@pytest.mark.parametrize("network", DANNET_NETWORKS)
def test_dannet(tmp_path, official, network):
    template = shapes_of(network, **TINY, **TINY_HEADS.get(network, {}))
    state = official_state(template, f"dannet_{network}")
    assert state.keys() <= official("dannet", f"dannet_{network}").keys()
    round_trip(tmp_path, state, template, f"dannet_{network}")


def test_relighting_network(tmp_path, official):
    state = random_state(official("dannet", "dannet_lightnet"))
    imported = round_trip(tmp_path, state, shapes_of("relight"), "dannet_light")
    kernel = imported.variables["params"]["relight"]["model_13"]["kernel_t"]
    np.testing.assert_array_equal(kernel[1, 2, 3, 4], state["model.13.weight"][3, 4, 1, 2])


def test_dannets_two_files_and_adaptsegnets_prefix(tmp_path):
    segmentation, light = shapes_of("deeplab", **TINY), shapes_of("relight")
    both = {collection: segmentation[collection] | light[collection] for collection in segmentation}
    states = [official_state(segmentation, "dannet_deeplab"), official_state(light, "dannet_light")]
    states[0] = {f"Scale.{name}": value for name, value in states[0].items() if not name.endswith("tracked")}
    paths = [str(tmp_path / f"{i}.npz") for i in range(2)]
    for path, state in zip(paths, states, strict=True):
        save_state_dict(path, state)
    imported = import_files(paths, both)
    assert not imported.missing and len(imported.notes) == 2
    with pytest.raises(UserError, match=r"missing.*light\.\*"):
        import_files(paths[:1], both)
    assert import_files(paths[:1], both, allow_missing=["relight.*"]).missing == list(named_leaves(light))
    with pytest.raises(UserError, match="both hold"):
        import_files([paths[0], paths[0]], both)


def mit_sizes(shapes, decoder):
    """Options of the tiny MiT with DAFormer head that has these names and shapes."""
    blocks = [f"backbone.block{i}.0" for i in (1, 2, 3, 4)]
    hidden = [shapes[f"{block}.mlp.fc1.weight"] for block in blocks]
    return {
        "backbone": "mit_b0",
        "head": "daformer",
        "backbone_dims": tuple(dim for _, dim in hidden),
        "backbone_mlp_ratios": tuple(wide // dim for wide, dim in hidden),
        "backbone_depths": tuple(len({n.split(".")[2] for n in shapes if f".block{i}." in n}) for i in (1, 2, 3, 4)),
        "backbone_sr_ratios": tuple(shapes.get(f"{block}.attn.sr.weight", (1,))[-1] for block in blocks),
        "backbone_heads": (1, 1, 1, 1),
        "head_embed_dim": shapes[f"{decoder}.embed_layers.0.proj.weight"][0],
        "head_channels": shapes[f"{decoder}.conv_seg.weight"][1],
    }


def test_hrda_and_refign(tmp_path, official):
    shapes = official("dsr_fpa", "small_networks_of_this_set", "hrda_tiny")
    channels = shapes["hrda_scale_attention.linear_pred.weight"][1]
    template = shapes_of("", hrda=True, attention_channels=channels, **mit_sizes(shapes, "head"))
    state = random_state(shapes)
    round_trip(tmp_path, state, template, "refign")
    theirs = lookup("hrda").to_official(state)
    decoder = official("dsr_fpa", "mmseg_naming", "hrda_mit_b5.decode_head")
    assert {name for name in theirs if name.startswith("decode_head.")} == decoder.keys()
    round_trip(tmp_path, theirs, template, "hrda")


def test_daformer_with_teacher(tmp_path, official):
    shapes = official("dsr_fpa", "small_networks_of_this_set", "dacs_micro_mmseg")
    template = shapes_of("", **mit_sizes(shapes, "decode_head"))
    round_trip(tmp_path, random_state(shapes), template, "mmseg")
    networks = {
        prefix: random_state(shapes, seed) for seed, prefix in enumerate(("model.", "ema_model.", "imnet_model."))
    }
    state = {prefix + name: value for prefix, part in networks.items() for name, value in part.items()}
    save_state_dict(tmp_path / "uda.npz", state)
    for which, prefix in (("student", "model."), ("teacher", "ema_model.")):
        imported = import_files([str(tmp_path / "uda.npz")], template, STACKS, network=which)
        bias = imported.variables["params"]["head"]["conv_seg"]["bias"]
        np.testing.assert_array_equal(bias, networks[prefix]["decode_head.conv_seg.bias"])
        assert imported.notes[1].endswith(f"{2 * len(shapes)} entries of other networks")


def test_refign_checkpoint_holds_three_networks_and_a_matcher():
    names = ["backbone.norm1.weight", "head.conv_seg.weight", "m_backbone.norm1.weight", "m_head.conv_seg.weight"]
    names += ["imnet_backbone.norm1.weight", "alignment_head.decoder4.predict_mapping.weight"]
    state = {name: np.full(1, i) for i, name in enumerate(names)}
    student, left = one_network(state, "student", "x")
    assert student.keys() == {names[0], names[1], names[5]} and left == 3
    teacher, _ = one_network(state, "teacher", "x")
    assert {name: int(value[0]) for name, value in teacher.items()} == {names[0]: 2, names[1]: 3}
    assert recognize(student, ["alignment_head.reduce.weight"], "x")[0] == "uawarpc"
    assert recognize(student, ["backbone.norm1.weight"], "x")[0] == "refign"
    with pytest.raises(UserError, match="no teacher"):
        one_network({"backbone.norm1.weight": state[names[0]]}, "teacher", "x")


def test_dlv2(tmp_path):
    template = shapes_of("", backbone="resnet101_v1c_d8", head="deeplab_v2", **TINY)
    round_trip(tmp_path, official_state(template, "dlv2"), template, "dlv2")


def test_refinenet_of_dsr_fpa(tmp_path, official):
    """DANNet's names, all under the backbone; its teacher and the matcher stay out."""
    template = shapes_of("refinenet", **TINY, **TINY_HEADS["refinenet"])
    state = official_state(template, "dsr_fpa_refinenet")
    assert state.keys() <= {f"backbone.{name}" for name in official("dannet", "dannet_refinenet")}
    dannet = official_state(template, "dannet_refinenet")
    assert_same(state, {f"backbone.{name}": value for name, value in dannet.items()})
    round_trip(tmp_path, state, template, "dsr_fpa_refinenet")
    teacher = official_state(template, "dsr_fpa_refinenet", seed=1)
    matcher = {"alignment_head.decoder4.predict_mapping.weight": np.zeros((2, 32, 3, 3), np.float32)}
    save_state_dict(tmp_path / "whole.npz", state | {f"m_{name}": x for name, x in teacher.items()} | matcher)
    for which, network in (("student", state), ("teacher", teacher)):
        imported = import_files([str(tmp_path / "whole.npz")], template, STACKS, network=which)
        assert ": dsr_fpa_refinenet, " in imported.notes[0]
        bias = imported.variables["params"]["head"]["clf_conv"]["bias"]
        np.testing.assert_array_equal(bias, network["backbone.clf_conv.bias"])


def test_matcher(tmp_path, official):
    template = shapes_of("matcher")
    head = random_state(official("dsr_fpa", "refign_naming", "uawarpc_head"))
    vgg = random_state(official("dsr_fpa", "refign_naming", "vgg16_features"), seed=1)
    names = {"alignment_head": head, "alignment_backbone": vgg}
    whole = {f"{part}.{name}": value for part, state in names.items() for name, value in state.items()}
    round_trip(tmp_path, whole, template, "uawarpc")
    classifier = {"classifier.0.weight": np.zeros((4, 8), np.float32)}
    missing = ["alignment_head.*"]
    imported = round_trip(tmp_path, vgg | classifier, template, "vgg16", missing, dropped="classifier.")
    assert "not used: classifier.*" in imported.notes[1]


def resnet_names(block, depths, stem):
    """torchvision's names and shapes of a ResNet with 2, 4, 8 and 16 channels, or open-mmlab's with ``stem``."""

    def norm(name, channels):
        shapes = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (channels,))
        return {f"{name}.{kind}": shape for kind, shape in (shapes | {"num_batches_tracked": ()}).items()}

    names = {"conv1.weight": (2, 3, 7, 7)} | norm("bn1", 2)
    if stem:
        names = (
            {"stem.0.weight": (1, 3, 3, 3)} | norm("stem.1", 1) | {"stem.3.weight": (1, 1, 3, 3)} | norm("stem.4", 1)
        )
        names |= {"stem.6.weight": (2, 1, 3, 3)} | norm("stem.7", 2)
    before, expansion = 2, 4 if block == "bottleneck" else 1
    for stage, depth in enumerate(depths, start=1):
        width = 2**stage
        for i in range(depth):
            name, after = f"layer{stage}.{i}", expansion * width
            shapes = [(width, before, 3, 3), (width, width, 3, 3)]
            if expansion == 4:
                shapes = [(width, before, 1, 1), (width, width, 3, 3), (after, width, 1, 1)]
            for number, shape in enumerate(shapes, start=1):
                names |= {f"{name}.conv{number}.weight": shape} | norm(f"{name}.bn{number}", shape[0])
            if i == 0 and (stage > 1 or before != after):
                names |= {f"{name}.downsample.0.weight": (after, before, 1, 1)} | norm(f"{name}.downsample.1", after)
            before = after
    return names | {"fc.weight": (1000, before), "fc.bias": (1000,)}


@pytest.mark.parametrize("variant", ["resnet18", "resnet101", "resnet101_v1c"])
def test_resnet(tmp_path, variant):
    depths = (2, 2, 2, 2) if variant == "resnet18" else (1, 2, 3, 1)
    names = resnet_names("basic" if variant == "resnet18" else "bottleneck", depths, variant.endswith("v1c"))
    options = {"backbone_widths": (2, 4, 8, 16), "backbone_stem_features": 2, "backbone_depths": depths}
    template = shapes_of("", backbone=variant, head="deeplab_v2", **options)
    imported = round_trip(tmp_path, random_state(names), template, "resnet", ["head.*"], dropped="fc.")
    assert "not used: fc.*" in imported.notes[1] and len(imported.missing) == 8


def mit_names(prefix=""):
    """NVlabs' names and shapes of `MIT`."""
    names, before = {}, 3
    for i, (dim, depth, sr) in enumerate(zip(MIT["dims"], MIT["depths"], (8, 4, 2, 1), strict=True), start=1):
        kernel = 7 if i == 1 else 3
        names |= {f"patch_embed{i}.proj.weight": (dim, before, kernel, kernel)}
        shapes = {f"patch_embed{i}.proj.bias": (dim,), f"norm{i}.weight": (dim,), f"norm{i}.bias": (dim,)}
        names |= shapes | {f"patch_embed{i}.norm.weight": (dim,), f"patch_embed{i}.norm.bias": (dim,)}
        for j in range(depth):
            shapes = {"norm1.weight": (dim,), "norm2.weight": (dim,), "attn.q.weight": (dim, dim)}
            shapes |= {"attn.kv.weight": (2 * dim, dim), "attn.proj.weight": (dim, dim)}
            if sr > 1:
                shapes |= {"attn.sr.weight": (dim, dim, sr, sr), "attn.norm.weight": (dim,)}
            shapes |= {"mlp.fc1.weight": (4 * dim, dim), "mlp.fc2.weight": (dim, 4 * dim)}
            shapes |= {"mlp.dwconv.dwconv.weight": (4 * dim, 1, 3, 3)}
            biases = {name.replace("weight", "bias"): shape[:1] for name, shape in shapes.items()}
            names |= {f"block{i}.{j}.{name}": shape for name, shape in (shapes | biases).items()}
        before = dim
    return {prefix + name: shape for name, shape in names.items()}


SEGFORMER = {"backbone": "mit_b0", "head": "segformer", "head_channels": 6} | {
    f"backbone_{k}": v for k, v in MIT.items()
}


def segformer_head_names(prefix):
    names = {f"linear_c{i}.proj.weight": (6, dim) for i, dim in enumerate(MIT["dims"], start=1)}
    names |= {f"linear_c{i}.proj.bias": (6,) for i in (1, 2, 3, 4)}
    names |= {"linear_fuse.conv.weight": (6, 24, 1, 1), "linear_fuse.bn.num_batches_tracked": ()}
    names |= dict.fromkeys(
        (f"linear_fuse.bn.{kind}" for kind in ("weight", "bias", "running_mean", "running_var")), (6,)
    )
    names |= {"linear_pred.weight": (19, 6, 1, 1), "linear_pred.bias": (19,)}
    return {prefix + name: shape for name, shape in names.items()}


def mmseg_head_names(prefix):
    shapes = {f"convs.{i}": (6, dim, 1, 1) for i, dim in enumerate(MIT["dims"])} | {"fusion_conv": (6, 24, 1, 1)}
    names = {f"{layer}.conv.weight": shape for layer, shape in shapes.items()}
    for layer in shapes:
        names |= {f"{layer}.bn.{kind}": (6,) for kind in ("weight", "bias", "running_mean", "running_var")}
        names[f"{layer}.bn.num_batches_tracked"] = ()
    names |= {"conv_seg.weight": (19, 6, 1, 1), "conv_seg.bias": (19,)}
    return {prefix + name: shape for name, shape in names.items()}


def test_mit(tmp_path):
    state = random_state(mit_names() | {"head.weight": (1000, 64), "head.bias": (1000,)})
    round_trip(tmp_path, state, shapes_of("", **SEGFORMER), "mit", ["head.*"], dropped="head.")


def test_segformer(tmp_path):
    names = mit_names("backbone.") | segformer_head_names("decode_head.") | {"decode_head.conv_seg.bias": (19,)}
    template = shapes_of("", **SEGFORMER)
    round_trip(tmp_path, random_state(names), template, "segformer", dropped="decode_head.conv_seg.")


def test_mmsegmentations_segformer(tmp_path):
    backbone = lookup("mmseg_segformer").to_official(random_state(mit_names("backbone.")))
    state = backbone | random_state(mmseg_head_names("decode_head."))
    round_trip(tmp_path, state, shapes_of("", **SEGFORMER, head_level_norm=True), "mmseg_segformer")


@pytest.mark.parametrize("naming", ["mmseg_mit", "huggingface_segformer", "huggingface_segformer_5"])
def test_other_names_of_a_mit(tmp_path, naming):
    """Ours out and in again; the torch tests compare with transformers' own names."""
    ours = random_state(mit_names("backbone.") | segformer_head_names("head."))
    head = () if naming.startswith("huggingface") else ("head.*",)
    theirs = lookup(naming).to_official({n: v for n, v in ours.items() if not head or n.startswith("backbone.")})
    round_trip(tmp_path, theirs, shapes_of("", **SEGFORMER), naming, head)
    back = lookup(naming).to_ours(theirs)
    assert_same(back, {name: ours[name] for name in back})


def test_mmsegmentation_joins_the_attention_and_has_convolutions():
    dim = MIT["dims"][1]
    ours = random_state(mit_names("backbone."))
    theirs = lookup("mmseg_segformer").to_official(ours)
    block, layer = "backbone.block2.1", "backbone.layers.1.1.1"
    joined = theirs[f"{layer}.attn.attn.in_proj_weight"]
    np.testing.assert_array_equal(joined[:dim], ours[f"{block}.attn.q.weight"])
    np.testing.assert_array_equal(joined[dim:], ours[f"{block}.attn.kv.weight"])
    assert theirs[f"{layer}.ffn.layers.0.weight"].shape == (4 * dim, dim, 1, 1)
    assert {
        f"{layer}.attn.attn.out_proj.bias",
        f"{layer}.ffn.layers.1.weight",
        "backbone.layers.1.2.bias",
    } <= theirs.keys()


def test_hrda_fuses_levels_in_the_other_order():
    rng = np.random.default_rng(0)
    levels = rng.random((4, 3), np.float32)  # Embedded levels, fine to coarse.
    theirs = rng.random((5, 12, 1, 1), np.float32)
    (ours,) = lookup("hrda").to_ours({"decode_head.scale_attention.fuse_layer.conv.weight": theirs}).values()
    fused = [w[:, :, 0, 0] @ x.ravel() for w, x in ((theirs, levels), (ours, levels[::-1]))]
    np.testing.assert_allclose(*fused, rtol=1e-6)


def test_files_for_another_model_or_of_no_family_say_so(tmp_path):
    save_state_dict(tmp_path / "mit.npz", random_state(mit_names()))
    with pytest.raises(UserError, match="no weights for this model"):
        import_files([str(tmp_path / "mit.npz")], shapes_of("matcher"))
    with pytest.raises(UserError, match="'resnet'"):
        import_files([str(tmp_path / "mit.npz")], shapes_of("", **SEGFORMER), naming="resnett")
    with pytest.raises(UserError, match="student or teacher"):
        import_files([str(tmp_path / "mit.npz")], shapes_of("", **SEGFORMER), network="best")


def test_differences_end_the_import_unless_named(tmp_path):
    names = mit_names()
    del names["norm3.bias"]
    save_state_dict(tmp_path / "mit.npz", random_state(names | {"extra.weight": (3,)}))
    template, path = shapes_of("", **SEGFORMER), [str(tmp_path / "mit.npz")]
    with pytest.raises(UserError, match=r"missing.*backbone\.norm3\.bias, head\.\*.*1 unknown.*extra\.\*"):
        import_files(path, template, STACKS)
    with pytest.raises(UserError, match="0 missing"):
        import_files(path, template, STACKS, allow_missing=["head.*", "backbone.norm3.*"])
    with pytest.raises(UserError, match="0 unknown"):
        import_files(path, template, STACKS, allow_missing=["head.*"], allow_surplus=["extra.*"])
    imported = import_files(
        path, template, STACKS, allow_missing=["head.*", "backbone.norm3.bias"], allow_surplus=["extra.*"]
    )
    assert "backbone.norm3.bias" in imported.missing and "backbone.norm3.weight" not in imported.missing


def test_export_without_a_name_ends_unless_named(tmp_path):
    template = shapes_of("", **SEGFORMER)
    variables = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), template)
    with pytest.raises(UserError, match=r"'mit' has no names for head\.\*"):
        export_file(str(tmp_path / "x.npz"), variables, "mit", STACKS)
    assert not (tmp_path / "x.npz").exists()


def test_every_family_says_what_it_is():
    for name, naming in NAMINGS.items():
        assert naming.about and naming.table, name
