"""Plans for machines that are not here; those of TPUs need libtpu and are marked ``tpu``."""

import importlib.util
import json
import os
import subprocess
import sys

import jax
import pytest

from nightjax import plan, planning
from nightjax.core import cli
from nightjax.core.errors import UserError
from nightjax.run import settings
from nightjax.zoo import listing, machines, planned
from tests.helpers import toy

tpu = [
    pytest.mark.tpu,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu: pip install 'nightjax[tpu]'"),
]


REMAT = "--config.model.backbone_remat=True --config.model.backbone_stored=inputs"
PRODUCTS = REMAT.replace("inputs", "products")


def call(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["plan", *words])
    cli.run(plan.main)


def config(name="supervised", **overrides):
    changes = {key.replace("__", "."): value for key, value in overrides.items()}
    return settings.override(settings.load(f"{name}:data=nightstreet_tiny"), changes)


def test_cpu(monkeypatch, capsys):
    """The command, in JSON and as text."""
    call(monkeypatch, "--config=supervised:data=nightstreet_tiny,steps=10", "--target=cpu", "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["fits"] and found["chips"] == 1 and found["collectives"] == {} and not found["refusal"]
    assert found["needed"] > found["state"]["params"] > 0 and found["temporary"] > 0 and found["flops"] > 1e6


def test_a_large_batch_gets_advice(monkeypatch):
    """The smallest change that fits, in the order of `smaller`; the compiler's answers are made up."""
    machine, seen = machines.Machine("a small CPU", "cpu", memory=10.0), []

    def answer(config, target):
        accumulate = config.train.accumulate
        seen.append((config.train.batch, accumulate))
        need = 16 // accumulate
        return planning.Plan(target, machine, 1, 4, accumulate, {"params": need}, 0, 0, "", 1.0, 1.0, {}, 1.0, 10)

    monkeypatch.setattr(planning, "plan", answer)
    asked = config(train__batch=4)
    words, found = planning.first_that_fits(asked, answer(asked, "cpu"))
    assert seen == [(4, 1), (4, 1), (4, 1), (4, 2)] and found.fits
    assert words == f"{REMAT} --config.train.accumulate=2"
    assert "fits" in planning.format_plan(found, asked)


def test_what_more_chips_cost(monkeypatch, capsys):
    """Each chip has the batch of the config; the compiler's answers are made up."""
    machine = machines.Machine("toy", "tpu", memory=1e9, bfloat16=1e12, bandwidth=1e9, link=1e8)

    def answer(config, target):
        chips = int(target)
        talk = {"all-reduce": (3, 500_000), "all-gather": (1, 100_000)} if chips > 1 else {}
        return planning.Plan(
            target, machine, chips, config.train.batch, 1, {"params": 1}, 2, 0, "", 2e10, 1e7, talk, 1.0, 10
        )

    monkeypatch.setattr(planning, "plan", answer)
    monkeypatch.setattr(planning, "compile_only", lambda target: (machine, range(int(target))))
    call(
        monkeypatch, "--config=supervised:data=nightstreet_tiny", "--target=1,4", "--scaling", "--config.train.batch=2"
    )
    *_, one, four = capsys.readouterr().out.splitlines()
    assert one == "| 1 | 1 | 2 | 0 | 0.0 | 0.00 | 20.0 | 0.0 % | yes |"
    with pytest.raises(SystemExit):
        call(monkeypatch, "--config=supervised:data=nightstreet_tiny", "--target=1", "--scaling", "--json")
    assert "leave out --all, --json and --price" in capsys.readouterr().err
    # 1.1 MB sent, three quarters of it over links of 100 MB/s.
    assert four == "| 4 | 4 | 8 | 4 | 0.6 | 8.25 | 20.0 | 29.2 % | yes |"


def refused(chips=1, state=8, temporary=16):
    """A plan that does not fit in ten bytes."""
    machine = machines.Machine("toy", "tpu", memory=10.0)
    return planning.Plan("toy", machine, chips, 4, 1, {"params": state}, temporary, 0, "", 1.0, 1.0, {}, 1.0, 10)


def test_smaller_steps():
    changes = [words for words, _ in planning.smaller(config(train__batch=4), refused())]
    assert changes == [
        PRODUCTS,
        REMAT,
        f"{REMAT} --config.train.accumulate=2",
        f"{REMAT} --config.train.accumulate=4",
        f"{REMAT} --config.train.accumulate=2 --config.train.batch=2",
        f"{REMAT} --config.train.accumulate=1 --config.train.batch=1",
    ]
    daformer = config(train__batch=1, model__head="daformer")
    assert next(planning.smaller(daformer, refused()))[0] == f"{PRODUCTS} --config.model.head_remat=True"


def test_smaller_steps_of_several_chips():
    """A state is split alone only where the rest would fit, and not where it is split already."""
    shard = "--config.train.shard=params"
    both = [f"{shard} {PRODUCTS}", f"{shard} {REMAT}"]
    first = lambda plan, **keys: [words for words, _ in planning.smaller(config(train__batch=4, **keys), plan)]
    assert first(refused(4, state=8, temporary=16)) == [PRODUCTS, *both]
    assert first(refused(4, state=20, temporary=5)) == [shard, *both]
    assert first(refused(4, state=8, temporary=5)) == [shard, PRODUCTS, *both]
    assert first(refused(4), train__shard="params") == [PRODUCTS, REMAT]


def test_the_table_of_all_recipes(monkeypatch, capsys):
    """A row a recipe and target, and another with the flags that make it fit; the compiler's answers are made up."""

    def answer(config, target):
        need = 5 if config.model.backbone_remat else 30
        machine = machines.Machine("toy", "cpu", 10e9, 1e12, 0, 1e9)
        batch = config.train.batch
        return planning.Plan(
            target, machine, 1, batch, 1, {"params": int(1e9)}, int(need * 1e9), 0, "", 2e12, 1e9, {}, 1.0, 10
        )

    monkeypatch.setattr(planning, "plan", answer)
    monkeypatch.setattr(planned, "RECIPES", {"toy": "supervised:data=nightstreet_tiny"})
    call(monkeypatch, "--all", "--target=cpu")
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "| toy | cpu | 4 | 1.0 | 30.0 | no | 2.0 | 1 |  |"
    assert lines[3] == f"| toy `{PRODUCTS}` | cpu | 4 | 1.0 | 5.0 | yes | 2.0 | 1 | 2000 |"


def test_planned_recipes_are_configs():
    for path in planned.RECIPES.values():
        settings.load(path)


@pytest.mark.parametrize(
    ("target", "word"),
    [("v5x:2x2", "v5p"), ("v5e", "v5e:2x2"), ("v5e:4", "v5e:2x2"), ("h200:0", "h200:8"), ("cpu:2", "no size")],
)
def test_wrong_targets(target, word):
    with pytest.raises(UserError, match=word):
        machines.compile_only(target)


def test_a_missing_compiler_is_named(monkeypatch):
    from jax.experimental import topologies

    def refuse(**_):
        raise NotImplementedError("topology not implemented for cuda")

    monkeypatch.setattr(topologies, "get_topology_desc", refuse)
    with pytest.raises(UserError, match=r"nightjax\[cuda13\]"):
        machines.compile_only("h200")


def test_what_a_compiler_needed_is_read_from_its_refusal():
    """In the words of two versions of libtpu."""
    for words in (
        "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 28.32G of 15.75G hbm.",
        "RESOURCE_EXHAUSTED: E1000: total memory required for HLO temporaries (28.32G) exceeds available HBM (15.75G)",
    ):
        assert planning._refused_bytes(words) == int(28.32 * 2**30)


def test_bounds():
    """Seconds by hand: 2e12 operations at 1e12 a second, and so on."""
    machine = machines.Machine("toy", "tpu", 10.0, 1e12, 0, 1e9, 1e6)
    found = planning.Plan(
        "toy:2x1", machine, 2, 4, 1, {"params": 5}, 4, 2, "", 2e12, 5e8, {"all-reduce": (3, 4_000_000)}, 1.0, 100
    )
    assert found.bounds("bfloat16") == {"arithmetic": 2.0, "memory": 0.5, "links": 4.0}
    assert found.needed == 11 and not found.fits
    for price in ("-1", "nan"):
        with pytest.raises(UserError, match="price"):
            planning.check_price(float(price))


METHODS = [
    "supervised",
    "supervised:model=vit_tiny,tune=adapters",
    "dacs",
    "mic",
    "vfm_uda",
    "dsr_fpa",
    "dannet",
    "t2s_da",
    "t2s_da:mode=dg",
    "adaptsegnet",
    "self_training",
    "self_supervised",
    "distill:teacher={run}",
    "nightlab",
    "nightlab:stage=detector,start={run},hard=5+6",
    "nightlab:stage=hdm,start={run},hard=5+6",
    "unit",
    "cyclegan",
    "pix2pixhd",
    "uawarpc",
]
"""Every method, and the forms of it that have another step."""


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("_", [pytest.param("", marks=tpu)])
def test_a_tpu_slice_reduces_and_gathers_nothing(tmp_path, method, _):
    """On NightStreet's smallest images, four of each domain; another run's weights are those of an untrained one."""
    if "{run}" in method:
        method = method.format(
            run=toy.untrained_run(tmp_path / "run", settings.load("supervised:data=nightstreet_tiny"))
        )
    tiny = settings.load(f"{method}{',' if ':' in method else ':'}data=nightstreet_tiny")
    found = planning.plan(settings.override(tiny, {"train.batch": 4}), "v5e:2x2")
    assert found.fits and found.chips == 4
    assert set(found.collectives) == {"all-reduce"}


@pytest.mark.parametrize(
    "config",
    ["distill:teacher={run}", pytest.param("dsr_fpa:aligner=uawarpc,matcher={run}", marks=pytest.mark.slow)],
)
def test_a_config_that_names_another_run(tmp_path, monkeypatch, config):
    """What comes from that run is read before the step is built; the compiler's answer is made up."""
    other = "supervised" if "teacher" in config else "uawarpc"
    run = toy.untrained_run(tmp_path / "run", settings.load(f"{other}:data=nightstreet_tiny"))

    def refuse(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Used 3.00G of 2.00G hbm.")

    monkeypatch.setattr(planning, "compile_step", refuse)
    found = planning.plan(settings.load(config.format(run=run) + ",data=nightstreet_tiny"), "cpu")
    assert not found.fits and found.temporary == 3 * 2**30 and found.flops > 1e6
    with pytest.raises(UserError, match="nowhere"):
        planning.plan(settings.load(config.format(run=tmp_path / "nowhere") + ",data=nightstreet_tiny"), "cpu")


def test_every_method_is_planned():
    assert {method.partition(":")[0] for method in METHODS} == set(listing.list_configs())


@pytest.mark.parametrize("_", [pytest.param("", marks=tpu)])
def test_two_processes_compile_at_once(_):
    """libtpu's lock is for those that use its chips."""
    code = "from nightjax.zoo import machines; print(machines.compile_only('v5e:2x2')[1][0].platform); input()"
    environment = {key: value for key, value in os.environ.items() if key != "ALLOW_MULTIPLE_LIBTPU_LOAD"}
    run = [sys.executable, "-c", code]
    first = subprocess.Popen(run, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert first.stdout.readline() == "tpu\n"
        second = subprocess.run(run, input="\n", capture_output=True, text=True, env=environment)
        assert second.stdout == "tpu\n", second.stderr
    finally:
        first.communicate("\n")


@pytest.mark.parametrize("_", [pytest.param("", marks=tpu)])
def test_an_absurd_batch_is_refused_in_the_compilers_words(_):
    small, large = (planning.plan(config(train__batch=batch), "v5e:2x2") for batch in (4, 64))
    assert small.temporary < large.temporary
    found = planning.plan(config(train__batch=1 << 18), "v5e:2x2")
    assert not found.fits and "memory" in found.refusal and found.temporary > 16e9
