"""Runs that train adapters and head alone: what moves, what is saved, and what the next run makes of it."""

import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from ml_collections import ConfigDict

from nightjax import convert, methods
from nightjax.core import sharding
from nightjax.core.errors import UserError
from nightjax.core.partition import BASE, paths
from nightjax.core.step import with_base
from nightjax.interop.convert import export_file, import_files
from nightjax.interop.weight_files import load_state_dict
from nightjax.models.adapters import has_adapters
from nightjax.run import imported, loaded, settings, start
from nightjax.train import train
from tests.helpers import toy

MODEL = {
    "backbone": "dinov2_tiny",
    "backbone_dim": 16,
    "backbone_heads": 2,
    "backbone_fit": "pad",
    "backbone_lora_rank": 2,
    "head": "bn_linear",
    "dtype": "float32",
}
GROUPS = ({"pattern": "^backbone/.*/lora_"}, {"pattern": "^backbone/", "trained": False})


def config(folder, method="supervised", *, model=MODEL, groups=GROUPS, **overrides):
    whole = toy.config(folder, method).to_dict()
    whole["model"], whole["optim"]["groups"] = dict(model), groups
    complete = settings.complete(ConfigDict(whole))
    return settings.override(complete, {key.replace("__", "."): value for key, value in overrides.items()})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy.write_folder(tmp_path_factory.mktemp("data"), references=True)


@pytest.fixture(scope="module")
def pretrained(folder, tmp_path_factory):
    """A run without adapters, from which others start."""
    plain = {**MODEL, "backbone_lora_rank": 0}
    return toy.untrained_run(tmp_path_factory.mktemp("pretrained"), config(folder, model=plain, groups=()))


@pytest.fixture(scope="module")
def adapted(folder, pretrained, tmp_path_factory):
    """Four steps of DACS on its adapters and head."""
    workdir = tmp_path_factory.mktemp("adapted")
    train(config(folder, "dacs", train__init=str(pretrained), checkpoint__keep=3), workdir)
    return workdir


def first_state(config):
    method, mesh = methods.build(config), sharding.make_mesh(jax.devices()[:1])
    return method, mesh, start.abstract_state(config, method, mesh)


def test_checkpoints_hold_adapters_and_head(adapted, pretrained):
    saved = toy.saved_state(adapted, 4)
    assert not [name for name in saved if BASE in name]
    for part in ("params']['student", "teacher']['params", "opt_state"):
        own = [name for name in saved if part in name and "backbone" in name]
        assert own and all("lora_" in name for name in own), part
    assert any("['head']" in name for name in saved)
    notes = json.loads((adapted / "base.json").read_text())
    assert notes["init"] == str(pretrained) and re.fullmatch("[0-9a-f]{64}", notes["sha256"])
    assert not (pretrained / "base.json").exists()


def test_the_base_stays_and_the_rest_moves(adapted, pretrained):
    before, after = loaded.load(pretrained), loaded.load(adapted, "student")
    moved, stayed = [], []
    for path in sorted(paths(after.variables["params"])):
        leaves = []
        for run in (before, after):
            node = run.variables["params"]
            for part in path.split("/"):
                node = node.get(part, {}) if isinstance(node, dict) else node
            leaves.append(node)
        same = isinstance(leaves[0], jax.Array) and np.array_equal(*leaves)
        (stayed if same else moved).append(path)
    assert all(path.startswith("backbone/") and "lora_" not in path for path in stayed)
    assert all("lora_" in path or path.startswith("head/") for path in moved)
    teacher = loaded.load(adapted, "teacher").variables["params"]["backbone"]
    np.testing.assert_array_equal(teacher["pos_embed"], after.variables["params"]["backbone"]["pos_embed"])


@pytest.mark.slow
def test_a_run_goes_on_as_it_would_have(folder, adapted, pretrained, tmp_path):
    given = config(folder, "dacs", train__init=str(pretrained), checkpoint__keep=3)
    toy.train_until(given, tmp_path, 2)
    train(given, tmp_path)
    one, two = toy.saved_state(adapted, 4), toy.saved_state(tmp_path, 4)
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


def test_a_base_that_has_changed_is_refused(folder, adapted, pretrained, tmp_path):
    path = adapted / "base.json"
    notes = path.read_text()
    try:
        path.write_text(notes.replace(json.loads(notes)["sha256"], 64 * "0"))
        with pytest.raises(UserError, match=r"sha256 000000000000\.\., and train.init=.* now has"):
            loaded.load(adapted)
    finally:
        path.write_text(notes)
    moved = pretrained.rename(tmp_path / "elsewhere")
    try:
        with pytest.raises(UserError, match="trained alone; the rest is lost"):
            loaded.load(adapted)
    finally:
        moved.rename(pretrained)


def copied_run(run, place, old="", new=""):
    """A copy of a run, in whose config some text is another."""
    shutil.copytree(run, place)
    path = place / "config.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new) if old else text)
    return place


def readers(run):
    """Whatever needs the base of a run: loading it, going on with it, and starting another from it."""
    given = loaded.read_config(run)
    following = settings.override(given, {"train.init": str(run)})
    method, _, shapes = first_state(following)
    yield lambda: loaded.load(run)
    yield lambda: train(given, run)
    yield lambda: start.load_initial(following, method, shapes)


def test_other_weights_in_place_of_the_base_are_refused(folder, adapted, pretrained, tmp_path):
    """Really other weights, of the same network."""
    plain = {**MODEL, "backbone_lora_rank": 0}
    other = toy.untrained_run(tmp_path / "other", config(folder, model=plain, groups=(), seed=1))
    run = copied_run(adapted, tmp_path / "run", str(pretrained), str(other))
    for read in readers(run):
        with pytest.raises(UserError, match=r"was trained on a base of sha256 [0-9a-f]{12}\.\., and .* now has"):
            read()


def test_what_names_the_base_must_be_there(adapted, tmp_path):
    """Its checkpoints alone look like those of another network."""
    run, refused = copied_run(adapted, tmp_path / "run"), r"base.json is missing or damaged; restore it: [^\n]*$"
    for content in ("{", "[]", "{}"):
        (run / "base.json").write_text(content)
        with pytest.raises(UserError, match=refused):
            loaded.load(run)
    (run / "base.json").unlink()
    for read in readers(run):
        with pytest.raises(UserError, match=refused):
            read()


@pytest.mark.slow
def test_a_base_from_scratch_stays_in_the_checkpoints(folder, tmp_path):
    """As it was, from the first to the last; nothing else has it."""
    train(config(folder, "dacs", train__steps=10), tmp_path)
    first, last = toy.saved_state(tmp_path, 2), toy.saved_state(tmp_path, 10)
    names = [name for name in last if BASE in name]
    assert names and not (tmp_path / "base.json").exists()
    for name in names:
        np.testing.assert_array_equal(first[name], last[name], err_msg=name)
    heads = [name for name in last if "params" in name and "['head']" in name]
    assert not all(np.array_equal(first[name], last[name]) for name in heads)
    found = loaded.load(tmp_path).variables["params"]["backbone"]["blocks"]["mlp"]["fc1"]["kernel"]
    (saved,) = (last[name] for name in names if name.endswith("['mlp']['fc1']['kernel']"))
    np.testing.assert_array_equal(found, saved)


def test_merged_it_is_the_network_without_adapters(adapted, folder):
    run = loaded.load(adapted)
    merged = run.merged()
    assert has_adapters(run.variables["params"]) and not has_adapters(merged.variables["params"])
    image = np.random.default_rng(0).integers(0, 256, (1, *toy.SIZE, 3), dtype=np.uint8)
    np.testing.assert_allclose(merged.predict_fn(image), run.predict_fn(image), rtol=0, atol=1e-4)
    plain = config(folder, model={**MODEL, "backbone_lora_rank": 0}, groups=())
    wanted = first_state(plain)[2].params["student"]
    assert jax.tree.map(jnp.shape, merged.variables["params"]) == jax.tree.map(lambda x: x.shape, wanted)
    assert merged.merged() is merged


def moved(params):
    """All weights a little away, also the adapters that are zero at first."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: x + 0.05 * rng.normal(size=x.shape).astype(np.float32), params)


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "head"), [("mit_tiny", "segformer"), ("swin_tiny", "upernet")])
def test_adapters_of_other_transformers_merge(folder, tmp_path, monkeypatch, backbone, head):
    """Merged it says the same, and without its adapters it would say something else."""
    first = start.first_state
    move = lambda *args: (state := first(*args)).replace(params=moved(state.params))
    monkeypatch.setattr(start, "first_state", move)
    model = {"backbone": backbone, "head": head, "dtype": "float32", "backbone_lora_rank": 2}
    run = loaded.load(toy.untrained_run(tmp_path, config(folder, model=model, groups=())))
    image = np.random.default_rng(0).integers(0, 256, (1, *toy.SIZE, 3), dtype=np.uint8)
    logits, merged = np.asarray(run.predict_fn(image)), run.merged()
    assert not has_adapters(merged.variables["params"])
    np.testing.assert_allclose(merged.predict_fn(image), logits, rtol=0, atol=1e-4)
    flat = traverse_util.flatten_dict(run.variables["params"], sep="/")
    silent = {name: jnp.zeros_like(x) if "lora_" in name else x for name, x in flat.items()}
    variables = {**run.variables, "params": traverse_util.unflatten_dict(silent, sep="/")}
    assert np.abs(np.asarray(run.method.predict(variables, image)) - logits).max() > 1e-2


def test_exported_it_has_published_names_alone(adapted, pretrained, tmp_path):
    """As the run without adapters, and with the weights of the merged network."""
    states = {}
    for name, run in (("adapted", adapted), ("pretrained", pretrained)):
        words = [f"--export={run}", "--naming=dinov2", f"--output={tmp_path / name}.npz", "--allow_missing=head.*"]
        convert.main(["convert", *words])
        states[name] = load_state_dict(tmp_path / f"{name}.npz")
    assert states["adapted"].keys() == states["pretrained"].keys()
    assert not [name for name in states["adapted"] if "lora" in name]
    changed = {
        name for name, value in states["adapted"].items() if not np.array_equal(value, states["pretrained"][name])
    }
    assert changed and all(re.search(r"\.(qkv|proj|fc1|fc2)\.weight$", name) for name in changed)

    merged = loaded.load(adapted).merged()
    like = jax.tree.map(jnp.zeros_like, merged.variables)
    file = str(tmp_path / "adapted.npz")
    found = import_files([file], like, merged.method.stacks, allow_missing=["head.*"]).variables["params"]["backbone"]
    assert jax.tree.all(jax.tree.map(np.array_equal, found, merged.variables["params"]["backbone"]))


@pytest.mark.slow
def test_another_run_starts_from_it(folder, adapted, tmp_path):
    """From adapters and base together, whether it trains the adapters or everything."""
    for groups in (GROUPS, ()):
        given = config(folder, groups=groups, train__init=str(adapted))
        method, mesh, shapes = first_state(given)
        found = start.load_initial(given, method, shapes)["student"]["params"]
        expected = loaded.load(adapted, "student").variables["params"]
        assert jax.tree.all(jax.tree.map(np.array_equal, found, expected))
        state = start.first_state(given, method, mesh)
        whole = method.variables(state)["params"]
        assert jax.tree.all(jax.tree.map(np.array_equal, whole, expected))


def test_published_weights_become_the_base(folder, pretrained, tmp_path):
    """A file is converted for a config with adapters, and lacks them; the run that starts from it has them."""
    variables = loaded.load(pretrained).variables
    stacks = methods.build(config(folder)).stacks
    file = str(tmp_path / "published.npz")
    export_file(file, variables, "dinov2", stacks, allow_missing=["head.*"])
    imported.import_run(config(folder), [file], tmp_path / "converted", allow_missing=["head.*"])
    found = loaded.load(tmp_path / "converted").variables["params"]["backbone"]
    expected = variables["params"]["backbone"]
    assert jax.tree.all(jax.tree.map(np.array_equal, found, jax.tree.map(np.asarray, expected)))
    given = config(folder, train__init=str(tmp_path / "converted"))
    method, _, shapes = first_state(given)
    base = start.load_initial(given, method, shapes)["student"]["params"]["backbone"]
    assert jax.tree.all(jax.tree.map(np.array_equal, base, expected))


def test_no_weight_gradient_and_no_optimizer_slot_of_the_base(folder):
    """Neither in the program nor in the state."""
    given = config(folder, "dacs")
    method, mesh, shapes = first_state(given)
    base = paths(shapes.frozen[BASE]["student"])
    assert base and not base & paths(shapes.params["student"])
    slots = [jax.tree_util.keystr(path) for path, leaf in jax.tree.leaves_with_path(shapes.opt_state) if leaf.ndim]
    assert slots and not [slot for slot in slots if "backbone" in slot and "lora_" not in slot]
    assert jax.tree.structure(shapes.teacher["params"]) == jax.tree.structure(shapes.params["student"])

    params = shapes.params["student"]
    kernel = shapes.frozen[BASE]["student"]["backbone"]["blocks"]["mlp"]["fc1"]["kernel"].shape

    def loss(own, stats, part, i):
        variables = {"params": own["student"], "batch_stats": stats["student"]}
        logits = method.network.model.apply(variables, part["x"], train=True, mutable=["batch_stats"])[0]["logits"]
        return jnp.sum(logits), None

    part = {"x": jnp.zeros((2, 28, 42, 3))}

    def gradient(state):
        own = {"student": state.params["student"]}
        return jax.grad(lambda own: with_base(state, loss)(own, state.batch_stats, part, 0)[0])(own)

    whole = {"student": method.variables(shapes)["params"]}
    all_trained = lambda own: jax.grad(lambda own: loss(own, shapes_to_zeros(shapes.batch_stats), part, 0)[0])(own)
    shape = "x".join(str(n) for n in kernel[-2:]) + "xf32"

    def products(text):
        """Matrix products whose result has the shape of the first layer of the MLP."""
        return len(re.findall(rf"stablehlo.dot_general.*-> tensor<(?:1x)?{shape}>", text))

    assert products(jax.jit(gradient).lower(shapes).as_text()) == 0
    assert products(jax.jit(all_trained).lower(whole).as_text()) > 0
    assert params


def shapes_to_zeros(tree):
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), tree)


def test_methods_that_cannot_leave_out_say_so(folder):
    plain = config(folder, groups=({"pattern": "^nothing/", "trained": False},))
    assert first_state(plain)[2].frozen == {}
    everything = config(folder, groups=({"pattern": "", "trained": False},))
    with pytest.raises(UserError, match="no parameter to train"):
        first_state(everything)
