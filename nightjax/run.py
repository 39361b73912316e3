"""A run on disk: its config, its method, its weights. Needs the workdir alone, no data set."""

import dataclasses
import functools
import os
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from etils import epath
from jax.sharding import Mesh

from nightjax import methods
from nightjax.core import checkpoint, sharding
from nightjax.core import config as configs
from nightjax.core.errors import UserError
from nightjax.core.fused_init import fused_init
from nightjax.core.method import Method, Variables
from nightjax.core.state import TrainState
from nightjax.data.streams import StreamSpec
from nightjax.interop.official_names import VGG16_CAFFE, from_official
from nightjax.interop.torch_weights import from_torch, torch_name
from nightjax.interop.weight_files import load_state_dict
from nightjax.methods.network import Input, NetworkMethod

PyTree = Any


def stream_specs(config: ml_collections.ConfigDict, method: Method) -> dict[str, StreamSpec]:
    """The data streams that a method reads, from the config's ``data.streams``.

    Raises:
        UserError: the config lacks one of the method's domains.
    """
    section = config.data.streams
    specs = {}
    for name in method.streams:
        if name not in section:
            raise UserError(
                f"method {config.method.name!r} reads the domain {name!r}, but data.streams has {list(section)}"
            )
        specs[name] = configs.build(StreamSpec, dict(section[name]) | {"name": name}, f"data.streams.{name}")
    return specs


def batch_shapes(specs: dict[str, StreamSpec], batch: int) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    """Shapes and types of one global batch."""
    kinds = {
        "image": ((3,), jnp.uint8),
        "reference": ((3,), jnp.uint8),
        "label": ((), jnp.uint8),
        "invalid": ((), jnp.uint8),
        "flow": ((2,), jnp.float32),
        "flow_valid": ((), jnp.bool_),
    }
    shapes = {}
    for name, spec in specs.items():
        fields = {f: jax.ShapeDtypeStruct((batch, *spec.size, *kinds[f][0]), kinds[f][1]) for f in spec.fields}
        shapes[name] = fields | {"mask": jax.ShapeDtypeStruct((batch,), jnp.float32)}
    return shapes


def abstract_batch(
    config: ml_collections.ConfigDict, method: Method, mesh: Mesh
) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    """Shapes, types and shardings of one global batch."""
    place = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding.batch_sharding(mesh))
    return jax.tree.map(place, batch_shapes(stream_specs(config, method), config.train.batch))


def init_fn(config: ml_collections.ConfigDict, method: Method):
    """``() -> TrainState``, traceable: the first state as a function of the config alone."""
    shapes = batch_shapes(stream_specs(config, method), config.train.batch)

    def init() -> TrainState:
        batch = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return fused_init(method.init)(jax.random.key(config.seed), batch)

    return init


def abstract_state(config: ml_collections.ConfigDict, method: Method, mesh: Mesh) -> TrainState:
    """Shapes, types and shardings of the state, without computing it."""
    shapes = jax.eval_shape(init_fn(config, method))
    place = lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s)
    return jax.tree.map(place, shapes, sharding.state_sharding(mesh, shapes))


def first_state(config: ml_collections.ConfigDict, method: Method, mesh: Mesh) -> TrainState:
    """A fresh state on the mesh, with the weights of ``train.init`` if that names a run or checkpoint folder.

    Networks that no step changes take theirs from ``train.frozen``: network name to such a folder or a file of weights.
    """
    shapes = abstract_state(config, method, mesh)
    shardings = jax.tree.map(lambda x: x.sharding, shapes)
    # What a run to start from holds, where that is not the same student.
    initial = getattr(method, "initial_variables", method.variables)
    variables = load_initial(config, method, initial(shapes)) if config.train.init else None
    places = config.train.get("frozen", {})
    frozen = {name: load_frozen(places[name], configs.choose(shapes.frozen, name, "train.frozen")) for name in places}
    # Runs once, so what a CPU's compiler spends on it beyond the least is lost.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    state = jax.jit(init_fn(config, method), out_shardings=shardings, compiler_options=options)()
    state = state.replace(frozen=state.frozen | frozen)
    if variables is None:
        return state
    return jax.jit(method.with_weights, out_shardings=shardings)(state, variables)


def load_initial(config: ml_collections.ConfigDict, method: Method, abstract: Variables) -> Variables:
    """The weights of ``train.init`` for the student of a new run.

    Parts of the student (backbone, head, light, ...) that ``method.scratch`` names may be absent from the checkpoint;
    they are left out here and start from scratch. Parts that only the checkpoint has are dropped. Either is printed.

    Raises:
        UserError: another part is absent, the run saw its images in another form, or see `load_variables`.
    """
    path = epath.Path(config.train.init)
    folder = path if (path / "state").exists() else checkpoint.latest_folder(path)
    held, wanted = checkpoint.student_parts(folder), set(abstract["params"])
    if missing := sorted(wanted - held - set(getattr(method, "scratch", ()))):
        raise UserError(
            f"train.init={path} holds no {missing[0]!r} for this model, only {sorted(held)}; give a run of its model"
        )
    if isinstance(method, NetworkMethod) and (folder.parent.parent / "config.json").exists():
        saved = read_config(folder.parent.parent).method.get("input", {})
        before = configs.build(Input, dict(saved), "method.input")
        for name in ("mean", "std", "order"):
            old, new = getattr(before, name), getattr(method.input, name)
            if old != new:
                raise UserError(
                    f"train.init={path} was trained with method.input.{name}={old}, this run has {new}; make them one"
                )
    for parts, what in ((wanted - held, "not in it, from scratch"), (held - wanted, "in it, left out")):
        if parts:
            print(f"train.init={path}: {', '.join(sorted(parts))} {what}", flush=True)
    kept = {key: {name: tree[name] for name in tree if name in held} for key, tree in abstract.items()}
    return load_variables(folder, kept)


def load_variables(
    path: epath.PathLike, abstract: Variables, which: str = "student", step: int | str | None = None
) -> Variables:
    """One network's weights from a workdir or from one checkpoint's folder.

    Args:
        path: a workdir (its newest checkpoint, or that of ``step``) or ``WORKDIR/checkpoints/STEP``.
        abstract: shapes, types and shardings.
        which: ``"student"`` or ``"teacher"``.
        step: see ``path``.

    Raises:
        UserError: no checkpoint there, or of another model.
    """
    folder = epath.Path(path)
    if not (folder / "state").exists():
        folder = checkpoint.latest_folder(folder, step)
    if which == "teacher":
        return checkpoint.restore_part(folder, {"teacher": abstract})["teacher"]
    part = {key: {"student": tree} for key, tree in abstract.items()}
    return {key: tree["student"] for key, tree in checkpoint.restore_part(folder, part).items()}


def load_frozen(path: epath.PathLike, abstract: Variables) -> Variables:
    """One network's weights from a run (see `load_variables`) or from a file of torch names (.npz, .safetensors, .pth).

    Raises:
        UserError: nothing there, or the weights of another network.
    """
    if epath.Path(path).is_dir() or os.fspath(path).endswith(f"@{checkpoint.BEST}"):
        return load_variables(path, abstract)
    parts = {torch_name((part, "kernel")).split(".")[0] for part in abstract["params"]}
    state = from_official(load_state_dict(path), VGG16_CAFFE)
    weights = from_torch({name: value for name, value in state.items() if name.split(".")[0] in parts}, abstract)
    # Copied, because the state is donated and numpy's memory may be shared.
    return jax.tree.map(lambda x, like: jnp.copy(jax.device_put(x, like.sharding)), weights, abstract)


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained network, ready to use.

    Attributes:
        config: of the run.
        method: built from it.
        variables: the network's weights, replicated on the mesh.
        mesh: the devices.
        step: of the checkpoint.
        workdir: where it comes from.
        which: ``"student"`` or ``"teacher"``.
    """

    config: ml_collections.ConfigDict
    method: Method
    variables: Variables
    mesh: Mesh
    step: int
    workdir: epath.Path
    which: str

    @functools.cached_property
    def predict_fn(self) -> jax.tree_util.Partial:
        """uint8 [B, H, W, 3] to logits [B, h, w, K]."""
        return jax.tree_util.Partial(self.method.predict, self.variables)


def load_config(path: str | os.PathLike) -> ml_collections.ConfigDict:
    """The locked config of a file (see `configs.load`) with all settings of its method and optimiser."""
    return methods.with_defaults(configs.load(path))


def read_config(workdir: epath.PathLike) -> ml_collections.ConfigDict:
    """The config a workdir was started with.

    Raises:
        UserError: the folder holds no run.
    """
    path = epath.Path(workdir) / "config.json"
    if not path.exists():
        raise UserError(f"{workdir} holds no run (no config.json); give --workdir a folder that training wrote")
    try:
        config = configs.from_json(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); restore it or start the run again") from error
    if missing := {"seed", "model", "train", "data", "eval", "method", "optim"} - set(config):
        raise UserError(f"{path} is damaged (it has no {sorted(missing)[0]!r}); restore it or start the run again")
    return config


def load(workdir: epath.PathLike, which: str = "", step: int | str | None = None) -> Run:
    """Loads a trained network.

    Args:
        workdir: of the run.
        which: ``"student"`` or ``"teacher"``; by default what the config evaluates.
        step: of the checkpoint, or "best"; the newest by default.

    Raises:
        UserError: no run, no checkpoint, or no teacher.
    """
    config = read_config(workdir)
    method = methods.build(config)
    mesh = sharding.make_mesh(jax.devices()[: config.train.devices or None])
    abstract = abstract_state(config, method, mesh)
    which = which or config.eval.which
    check_network(abstract, which)
    folder = checkpoint.latest_folder(workdir, step)
    variables = load_variables(folder, method.variables(abstract, which), which)
    return Run(config, method, variables, mesh, int(folder.name), epath.Path(workdir), which)


def check_network(state: TrainState, which: str) -> None:
    """Raises UserError unless a state (abstract or real) has the network ``which``."""
    networks = ("student", "teacher") if state.teacher else ("student",)
    if which not in networks:
        raise UserError(f"the method has no {which!r} network; choose {' or '.join(networks)}")


def count_parameters(tree: PyTree) -> int:
    """Number of entries of all arrays."""
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(tree))
