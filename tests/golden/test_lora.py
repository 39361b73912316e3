"""Adapters against PEFT on transformers' network, and learning rates by layer."""

import re

import jax
import jax.numpy as jnp
import numpy as np

from nightjax.core.optim import Group, Optimizer
from nightjax.core.partition import joined, split
from nightjax.core.stacks import Stack
from nightjax.interop.torch_weights import to_torch
from nightjax.models.adapters import merged
from nightjax.models.backbones.dinov2 import DinoV2
from tests.helpers.golden import assert_within, normalized, number
from tests.helpers.modern import recipe_variables

FIRST, LAST = "lora_A", "lora_B"


def place(name):
    """``blocks.0.attn.q.lora_A`` is block 0's array at ``attn/lora_q/a``."""
    block, module, part, which = re.fullmatch(r"blocks\.(\d+)\.(\w+)\.(\w+)\.lora_([AB])", name).groups()
    return int(block), (module, f"lora_{part}", which.lower())


def pairs_of(file, depth):
    """The file's adapters as a tree of stacked parameters."""
    tree = {}
    for name in [name for name in file if re.match(r"blocks\.\d+\..*\.lora_[AB]$", name)]:
        block, (module, part, which) = place(name)
        arrays = tree.setdefault(module, {}).setdefault(part, {}).setdefault(which, [None] * depth)
        arrays[block] = file[name].T
    return jax.tree.map(jnp.stack, tree, is_leaf=lambda x: isinstance(x, list))


def last_hidden(model, params, x):
    def run(module, x):
        (tokens,) = module.outputs(module.embed(x), (module.depth - 1,))
        return module.norm(tokens)

    return model.apply({"params": params}, x, method=run)


def test_peft(golden):
    file = golden("modern", "lora")
    x, depth = normalized(file["x_uint8"]), number(file["depth"])
    sizes = {name: number(file[name]) for name in ("dim", "heads", "pretrain_size")}
    base = DinoV2(depth=depth, layers=(depth - 1,), pos_rule="size", **sizes)
    adapted = base.clone(lora_rank=number(file["r"]), lora_alpha=float(file["alpha"]))
    params = recipe_variables(base, file["base_seed"], x)["params"]
    assert float(file["scaling"]) == adapted.lora_alpha / adapted.lora_rank
    whole = joined(params, {"blocks": pairs_of(file, depth)})
    assert_within(last_hidden(base, params, x), file["base_last_hidden_state"], 1e-5, "base")

    def loss(pairs):
        y = last_hidden(adapted, joined(params, pairs), x)
        return jnp.sum(y * file["cotangent"]), y

    pairs = split(whole, lambda path: "lora_" in path)[1]
    (value, y), grad = jax.jit(jax.value_and_grad(loss, has_aux=True))(pairs)
    assert_within(y, file["adapted_last_hidden_state"], 1e-5, "adapted")
    np.testing.assert_allclose(value, file["loss"], rtol=1e-4)
    for name in [name for name in file if name.startswith("grad.")]:
        block, (module, part, which) = place(name.removeprefix("grad."))
        assert_within(grad["blocks"][module][part][which][block].T, file[name], 1e-4, name)

    one = merged(whole, adapted.lora_alpha)
    state = to_torch({"params": one}, base.stacks)
    for name in [name for name in file if name.startswith("merged.")]:
        np.testing.assert_allclose(state[name.removeprefix("merged.")], file[name], rtol=0, atol=1e-6, err_msg=name)
    assert_within(last_hidden(base, one, x), file["merged_last_hidden_state"], 1e-5, "merged")
    assert_within(last_hidden(base, one, x), y, 5e-6, "merged and adapted")


def test_layer_rates(golden):
    """VFM-UDA++'s rates: the head's, those of the blocks, and that of everything before and after them."""
    file = golden("modern", "layer_rates")
    cases = {match[0]: match for name in file if (match := re.match(r"depth(\d+)_decay([\d.]+)\.(?=decoder)", name))}
    for prefix, match in cases.items():
        depth, decay = int(match[1]), float(match[2])
        rate = float(file[f"{prefix}decoder_f64"])
        groups = (Group("^backbone/", lr=0.1, layer_decay=decay),)
        optimizer = Optimizer(lr=rate, groups=groups)
        params = {
            "student": {
                "backbone": {
                    "blocks": {"kernel": np.zeros((depth, 2, 3)), "bias": np.zeros((depth, 3))},
                    "norm": {"scale": np.zeros(3)},
                    "pos_embed": np.zeros((1, 4, 3)),
                },
                "head": {"kernel": np.zeros((3, 3))},
            }
        }
        factors = optimizer._factors(params, (Stack("backbone/blocks"),))[0]["student"]
        assert factors["head"]["kernel"] == 1.0
        for leaf in jax.tree.leaves(factors["backbone"]["blocks"]):
            blocks = np.broadcast_to(rate * np.ravel(leaf), depth)
            np.testing.assert_allclose(blocks, file[f"{prefix}blocks_f64"], rtol=1e-6)
        for leaf in (factors["backbone"]["pos_embed"], factors["backbone"]["norm"]["scale"]):
            np.testing.assert_allclose(rate * leaf, file[f"{prefix}stem_f64"], rtol=1e-6)
