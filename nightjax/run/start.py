# SPDX-License-Identifier: Apache-2.0
"""The first state of a run: shapes, shardings, fresh weights and those of other runs."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from etils import epath
from jax.sharding import Mesh, NamedSharding

from nightjax import bundled, methods
from nightjax.core import checkpoint, sharding, targets
from nightjax.core import config as configs
from nightjax.core.class_section import of_section, section_of, with_one_more
from nightjax.core.errors import UserError, choose, first_line
from nightjax.core.fused_init import fused_init
from nightjax.core.method import Trainable
from nightjax.core.partition import BASE, joined, paths, split, without
from nightjax.core.stacks import Stack
from nightjax.core.state import TrainState
from nightjax.core.types import PyTree, Variables
from nightjax.data import preflight
from nightjax.data.preflight import Wanted
from nightjax.data.streams import StreamSpec
from nightjax.interop.official_names import VGG16_CAFFE, from_official
from nightjax.interop.torch_weights import brief, from_torch, torch_name
from nightjax.interop.weight_files import load_state_dict
from nightjax.models.adapters import PREFIX
from nightjax.run import base, settings

FIELDS = {
    "image": ((3,), jnp.uint8),
    "reference": ((3,), jnp.uint8),
    "label": ((), jnp.uint8),
    "invalid": ((), jnp.uint8),
    "flow": ((2,), jnp.float32),
    "flow_valid": ((), jnp.bool_),
}
"""Field of a batch to its shape behind [B, H, W] and its type."""

BUNDLED = "bundled"
"""``train.init`` that names the network that comes with nightjax."""


def stream_specs(config: ml_collections.ConfigDict, method: Trainable) -> dict[str, StreamSpec]:
    """The data streams that a method reads, from the config's ``data.streams``.

    Raises:
        UserError: the config lacks one of the method's domains.
    """
    section = config.data.streams
    specs = {}
    for name in method.domains:
        if name not in section:
            raise UserError(
                f"method {config.method.name!r} reads the domain {name!r}, but data.streams has {list(section)}"
            )
        specs[name] = configs.build(StreamSpec, dict(section[name]) | {"name": name}, f"data.streams.{name}")
    return specs


def wanted_data(config: ml_collections.ConfigDict) -> dict[str, Wanted]:
    """What a run reads, by section: its streams and its evaluation sets."""
    wanted = {}
    for name, section in config.data.streams.items():
        spec = configs.build(StreamSpec, dict(section) | {"name": name}, f"data.streams.{name}")
        wanted[f"data.streams.{name}"] = Wanted(spec.dataset, spec.split, spec.fields)
    for name, section in settings.eval_sections(config).items():
        fields = ("image", "label")
        wanted[f"eval.sets.{name}"] = Wanted(section["dataset"], section["split"], fields, section["optional"])
    return wanted


def look_at_data(config: ml_collections.ConfigDict) -> None:
    """Looks at all data that a run reads, before anything is prepared or compiled, and prints what a user should know.

    Raises:
        UserError: some data cannot be read; see `preflight.look`.
    """
    data = config.data
    notes = preflight.look(wanted_data(config), data_dir=data.dir, manual_dir=data.manual_dir)
    if notes and jax.process_index() == 0:
        print("\n".join(notes), flush=True)


def batch_shapes(specs: dict[str, StreamSpec], batch: int) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    """Shapes and types of one global batch."""
    shapes = {}
    for name, spec in specs.items():
        fields = {
            field: jax.ShapeDtypeStruct((batch, *spec.size, *FIELDS[field][0]), FIELDS[field][1])
            for field in spec.fields
        }
        shapes[name] = fields | {"mask": jax.ShapeDtypeStruct((batch,), jnp.float32)}
    return shapes


def abstract_batch(
    config: ml_collections.ConfigDict, method: Trainable, mesh: Mesh
) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    """Shapes, types and shardings of one global batch."""
    place = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding.batch_sharding(mesh))
    return jax.tree.map(place, batch_shapes(stream_specs(config, method), config.train.batch))


def init_fn(config: ml_collections.ConfigDict, method: Trainable):
    """``() -> TrainState``, traceable: the first state as a function of the config alone."""
    shapes = batch_shapes(stream_specs(config, method), config.train.batch)

    def init() -> TrainState:
        batch = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return fused_init(method.init)(jax.random.key(config.seed), batch)

    return init


def abstract_state(config: ml_collections.ConfigDict, method: Trainable, mesh: Mesh) -> TrainState:
    """Shapes, types and shardings of the state, without computing it."""
    try:
        shapes = jax.eval_shape(init_fn(config, method))
    except (UserError, MemoryError):
        raise
    except Exception as error:  # Layers and jax raise many types for numbers that fit no network.
        changed = settings.changed_model(config)
        if not changed:
            raise
        given = ", ".join(f"model.{name}={value!r}" for name, value in changed.items())
        raise UserError(f"no network can be built with {given} ({first_line(error)}): change one of these") from error
    place = lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s)
    return jax.tree.map(place, shapes, sharding.state_sharding(mesh, shapes, config.train.shard))


def first_state(config: ml_collections.ConfigDict, method: Trainable, mesh: Mesh) -> TrainState:
    """A fresh state on the mesh, with the weights of ``train.init`` if that names a run or checkpoint folder.

    Networks that no step changes take theirs from ``train.frozen``: network name to such a folder or a file of weights.
    """
    shapes = abstract_state(config, method, mesh)
    shardings = jax.tree.map(lambda x: x.sharding, shapes)
    initial = load_initial(config, method, shapes) if config.train.init else None
    places = {name: place for name, place in config.train.frozen.items() if place}
    _check_teacher(config, places.get("teacher", ""))
    frozen = {
        name: load_frozen(place, choose(shapes.frozen, name, "train.frozen"), method.stacks)
        for name, place in places.items()
    }
    # It runs once, so on a CPU it is compiled at the lowest level.
    options = {"xla_backend_optimization_level": 0} if targets.of(mesh.devices.flat) == "cpu" else None
    state = jax.jit(init_fn(config, method), out_shardings=shardings, compiler_options=options)()
    state = state.replace(frozen=state.frozen | frozen)
    if initial is None:
        return state

    def start(state: TrainState, initial: dict[str, Variables]) -> TrainState:
        fresh = method.initial(state)
        found = {network: _completed(variables, fresh[network]) for network, variables in initial.items()}
        return method.with_initial(state, found)

    return jax.jit(start, out_shardings=shardings)(state, initial)


def load_initial(config: ml_collections.ConfigDict, method: Trainable, shapes: TrainState) -> dict[str, Variables]:
    """The weights of ``train.init`` for a new run, by network.

    Modules of a network (backbone, head, relight, ...) that the method calls optional may be absent from the
    checkpoint, and all but the backbone from that of a run without labels; they are left out here and start from
    scratch. Modules that only the checkpoint has are dropped. Of a run that tells other classes apart, the parameters
    that belong to classes are dropped too. All is printed. `BUNDLED` names the network that comes with nightjax.

    Raises:
        UserError: another module is absent, the run saw its images in another form, or see `load_network`.
    """
    path = epath.Path(bundled.NETWORK if config.train.init == BUNDLED else config.train.init)
    folder = path if (path / "state").exists() else checkpoint.latest_folder(path)
    _check_pixels(config, folder)
    unlabeled = _is_unlabeled(folder)
    found, foreign = {}, None if unlabeled else _foreign_classes(config, folder)
    per_class = class_parameters(config, method) if foreign else {}
    for network, wanted in method.initial(shapes).items():
        other = _base_of_run(folder.parent.parent, network, wanted)
        saved = checkpoint.parameters(folder, network) | paths(other)
        held, modules = {name.partition("/")[0] for name in saved}, set(wanted["params"])
        optional = modules - {"backbone"} if unlabeled else set(method.optional_init)
        if missing := sorted(modules - held - optional):
            raise UserError(
                f"train.init={path} holds no {missing[0]!r} for this model, only {sorted(held)}; "
                "give a run that trained this network"
            )
        for names, what in ((modules - held, "not in it, from scratch"), (held - modules, "in it, left out")):
            if names:
                print(f"train.init={path}: {', '.join(sorted(names))} {what}", flush=True)
        kept = {key: {name: tree[name] for name in tree if name in held} for key, tree in wanted.items()}
        replaced = per_class.get(network, set())
        if foreign and replaced:
            old, new = foreign
            print(
                f"train.init={path}: the classifier of {old} classes is replaced by one of {new}, from scratch "
                f"({brief(sorted(replaced))})",
                flush=True,
            )
        # Adapters that the other run has not start from scratch.
        absent = lambda name, saved=saved: f"/{PREFIX}" in name and name not in saved
        kept["params"] = split(kept["params"], absent)[0]
        found[network] = _load_with_base(folder, without(kept, replaced), network, other)
    return found


def _is_unlabeled(folder: epath.Path) -> bool:
    """Whether the checkpoint is of a run that trained a backbone without labels."""
    workdir = folder.parent.parent
    if not (workdir / settings.CONFIG).exists():
        return False
    cls = methods.METHODS.get((settings.saved(workdir).get("method") or {}).get("name") or "")
    return cls is not None and cls.task == "pretraining"


def _completed(variables: Variables, fresh: Variables) -> Variables:
    """A network's weights whose modules have every parameter, the fresh one where theirs was dropped."""
    joined = lambda tree, other: {
        name: (joined(tree[name], child) if isinstance(child, Mapping) else tree[name]) if name in tree else child
        for name, child in other.items()
    }
    return {
        key: {name: joined(module, fresh[key][name]) for name, module in modules.items()}
        for key, modules in variables.items()
    }


def class_parameters(config: ml_collections.ConfigDict, method: Trainable) -> dict[str, set[str]]:
    """Paths, ``params/head/...``, of the parameters that belong to classes, by network: those that one class more would
    change."""
    more = config.to_dict()
    more["classes"] = section_of(with_one_more(of_section(config.classes)))
    larger = methods.build(_without_class_weights(more))

    def leaves(method: Trainable) -> dict[str, dict[str, tuple[int, ...]]]:
        shapes = jax.eval_shape(init_fn(config, method))
        return {
            network: {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in found}
            for network, variables in method.initial(shapes).items()
            for found in [jax.tree_util.tree_leaves_with_path(variables)]
        }

    own, others = leaves(method), leaves(larger)
    return {network: {path for path in own[network] if own[network][path] != others[network][path]} for network in own}


def _without_class_weights(section: dict[str, Any]) -> dict[str, Any]:
    """A config that no longer says how much each class weighs, which is one number too few for one class more."""
    return {
        name: _without_class_weights(value) if isinstance(value, dict) else value
        for name, value in section.items()
        if name != "class_weights"
    }


def _check_teacher(config: ml_collections.ConfigDict, place: str) -> None:
    """Refuses a teacher of other classes."""
    if place and epath.Path(place.removesuffix(f"@{checkpoint.BEST}")).is_dir():
        folder = epath.Path(place)
        folder = folder if (folder / "state").exists() else checkpoint.latest_folder(place)
        if foreign := _foreign_classes(config, folder):
            raise UserError(
                f"train.frozen.teacher={place} tells {foreign[0]} classes apart that are not the {foreign[1]} of this "
                "run: name a teacher of this run's classes"
            )


def _foreign_classes(config: ml_collections.ConfigDict, folder: epath.Path) -> tuple[int, int] | None:
    """How many classes the run of a checkpoint and this one tell apart, if they are not the same ones."""
    workdir = folder.parent.parent
    if not (workdir / settings.CONFIG).exists():
        return None
    before, now = settings.saved_classes(workdir), of_section(config.classes)
    return None if before.same_classes(now) else (len(before), len(now))


def _load_with_base(folder: epath.Path, wanted: Variables, network: str, base_params: PyTree) -> Variables:
    """`load_network`, whose parameters that are in ``base_params`` are taken from there."""
    rest, shared = split(wanted["params"], paths(base_params).__contains__)
    found = load_network(folder, wanted | {"params": rest}, network)
    if not shared:
        return found
    own = split(base_params, paths(shared).__contains__)[1]
    own = jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), own, shared)
    return found | {"params": joined(found["params"], own)}


def _base_of_run(workdir: epath.Path, network: str, like: PyTree) -> PyTree:
    """The parameters of another run's network that its checkpoints lack, on the devices of ``like``; often none."""
    if not base.may_be_apart(workdir):
        return {}
    config = settings.override(settings.complete(settings.saved(workdir)), {"train.shard": "none"})
    mesh = cast(NamedSharding, jax.tree.leaves(like)[0].sharding).mesh
    return load_base(workdir, config, methods.build(config), cast(Mesh, mesh)).get(network, {})


def load_base(workdir: epath.PathLike, config: ml_collections.ConfigDict, method: Trainable, mesh: Mesh) -> PyTree:
    """The parameters that a run does not train and its checkpoints lack, by network; often none.

    Raises:
        UserError: ``train.init`` is not there any more, or holds other weights.
    """
    shapes = abstract_state(config, method, mesh)
    if not base.is_apart(config, shapes):
        return {}
    try:
        initial = load_initial(config, method, shapes)
    except UserError as error:
        raise UserError(f"{workdir} has in its checkpoints what it trained alone; the rest is lost: {error}") from error
    wanted = shapes.frozen[BASE]
    whole = {
        network: split(initial[network]["params"], paths(tree).__contains__)[1] for network, tree in wanted.items()
    }
    if paths(whole) != paths(wanted):  # A part of the base was made from the seed.
        whole = first_state(config, method, mesh).frozen[BASE]
    base.check(epath.Path(workdir), whole)
    return whole


def _check_pixels(config: ml_collections.ConfigDict, folder: epath.Path) -> None:
    """Refuses weights that saw images in another form, where both runs say in which."""
    workdir = folder.parent.parent
    if "input" not in config.model or not (workdir / settings.CONFIG).exists():
        return
    before = (settings.saved(workdir).get("model") or {}).get("input") or {}
    before = configs.with_defaults(methods.InputNormalization, dict(before))
    for name in ("mean", "std", "order"):
        if tuple(before[name]) != tuple(config.model.input[name]):
            raise UserError(
                f"train.init={config.train.init} was trained with model.input.{name}={before[name]}, and this run has "
                f"{config.model.input[name]}: set both alike"
            )


def load_network(
    path: epath.PathLike, abstract: Variables, network: str = "student", step: int | str | None = None
) -> Variables:
    """One network's weights from a workdir or from one checkpoint's folder.

    Args:
        path: a workdir (its newest checkpoint, or that of ``step``) or ``WORKDIR/checkpoints/STEP``.
        abstract: shapes, types and shardings.
        network: its name in the state.
        step: see ``path``.

    Raises:
        UserError: no checkpoint there, or of another model.
    """
    folder = epath.Path(path)
    if not (folder / "state").exists():
        folder = checkpoint.latest_folder(folder, step)
    part = {key: {network: tree} for key, tree in abstract.items() if tree}
    found = checkpoint.restore_part(folder, part)
    return {key: found[key][network] if key in found else {} for key in abstract}


def load_frozen(path: epath.PathLike, abstract: Variables, stacks: Sequence[Stack] = ()) -> Variables:
    """One network's weights from a run (its first network) or from a file of torch names (.npz, .safetensors, .pth).

    Args:
        path: of the run or the file.
        abstract: shapes, types and shardings.
        stacks: of the network, see `core.stacks`.

    Raises:
        UserError: nothing there, or the weights of another network.
    """
    if epath.Path(path).is_dir() or os.fspath(path).endswith(f"@{checkpoint.BEST}"):
        folder = epath.Path(path)
        folder = folder if (folder / "state").exists() else checkpoint.latest_folder(path)
        network = checkpoint.first_network(folder)
        return _load_with_base(folder, abstract, network, _base_of_run(folder.parent.parent, network, abstract))
    modules = {torch_name((module, "kernel")).split(".")[0] for module in abstract["params"]}
    state = from_official(load_state_dict(path), VGG16_CAFFE)
    own = {name: value for name, value in state.items() if name.split(".")[0] in modules}
    weights = from_torch(own, abstract, stacks)
    # Copied, because the state is donated and numpy's memory may be shared.
    return jax.tree.map(lambda x, like: jnp.copy(jax.device_put(x, like.sharding)), weights, abstract)


def count_parameters(tree: PyTree) -> int:
    """Number of entries of all arrays."""
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(tree))
