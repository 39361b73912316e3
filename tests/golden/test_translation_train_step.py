"""Three training iterations of CycleGAN and of pix2pixHD against the official programs.

Tolerances are the golden README's: losses 2e-5 relative, final parameters 2e-6, gradients 1e-4 of their largest value.
Biases in
front of an instance norm have no true gradient, so Adam moves them by rounding noise: they are not compared.
"""

import dataclasses
import functools
import os
import re
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.fused_init import fused_init
from nightjax.core.optim import Optimizer
from nightjax.core.step import Training
from nightjax.interop.official_names import from_official, to_official
from nightjax.interop.torch_weights import from_torch, to_torch
from nightjax.losses import translation
from nightjax.methods.cyclegan import CycleGAN
from nightjax.methods.parts.translating import to_signed
from nightjax.methods.pix2pixhd import Pix2PixHD, VGGLoss
from nightjax.models.cyclegan import ResnetGenerator
from tests.helpers.golden import largest, nhwc, state_of
from tests.helpers.translation_names import MULTISCALE, PATCHGAN

NETWORKS = {
    "G_A": (("generators", "to_b"), {}),
    "G_B": (("generators", "to_a"), {}),
    "D_A": (("discriminator_b",), PATCHGAN),
    "D_B": (("discriminator_a",), PATCHGAN),
    "G": (("generators",), {}),
    "D": (("discriminator",), MULTISCALE),
}
"""Official network to ours, and the table of its names. The official D_A judges what G_A makes."""


def generator_of(state):
    blocks = sum(name.endswith("conv_block.1.weight") for name in state)
    convolutions = sum(name.endswith(".weight") for name in state) - 2 * blocks
    return ResnetGenerator(len(state["model.1.bias"]), convolutions // 2 - 1, blocks)


def networks_in(file):
    return {name: entry for name, entry in NETWORKS.items() if any(key.startswith(f"init.{name}.") for key in file)}


def filled(method, file, batch):
    """The first state with the file's weights."""
    state = jax.jit(fused_init(method.init))(jax.random.key(0), batch)
    params = jax.tree.map(lambda x: x, state.params)
    for name, (path, table) in networks_in(file).items():
        node = functools.reduce(lambda tree, key: tree[key], path[:-1], params)
        weights = from_official(state_of(file, f"init.{name}."), table)
        node[path[-1]] = from_torch(weights, {"params": node[path[-1]]})["params"]
    return state.replace(params=params)


def last_bias(names):
    """The bias of a generator's last convolution, the only one in front of no norm."""
    return max(
        (name for name in names if re.fullmatch(r"model\.\d+\.bias", name)), key=lambda name: int(name.split(".")[1])
    )


def check(file, prefix, params, tolerance_of):
    """Compares all tensors with a true gradient that the file holds."""
    for name, (path, table) in networks_in(file).items():
        expected = state_of(file, f"{prefix}.{name}.")
        if not expected:
            continue
        tree = functools.reduce(lambda node, key: node[key], path, params)
        actual = to_official(to_torch({"params": tree}), table)
        judge = r"model\.(0|11)\.bias|scale\d_layer[04]\.0\.bias"  # First and last convolution.
        free = judge if name.startswith("D") else re.escape(last_bias(actual))
        for key, value in expected.items():
            if key.endswith(".weight") or re.fullmatch(free, key):
                np.testing.assert_allclose(
                    actual[key], value, rtol=0, atol=tolerance_of(value), err_msg=f"{name}.{key}"
                )


@dataclasses.dataclass(frozen=True)
class RecordedDraws(CycleGAN):
    """One buffer a domain, with the draws of the official run: domain to swaps and indices [iterations, B]."""

    recorded: Any = None

    def slots(self, batch):
        return 1

    def draws(self, state, domain, count):
        return tuple(jnp.asarray(table)[state.step] for table in self.recorded[domain])


def recorded_draws(file, iterations, batch):
    """Draws are taken for the pool of b, then of a, only for images that meet a full pool."""
    size = int(file["hyper_lr_beta1_beta2_lambdaA_lambdaB_idt_pool"][-1])
    draws = iter(zip(file["draw_p"], file["draw_index"], strict=True))
    tables = {domain: (np.zeros((iterations, batch), bool), np.zeros((iterations, batch), np.int32)) for domain in "ab"}
    for i in range(iterations):
        for domain in "ba":
            for k in range(batch):
                if i * batch + k >= size:
                    p, index = next(draws)
                    tables[domain][0][i, k], tables[domain][1][i, k] = p > 0.5, max(index, 0)
    assert next(draws, None) is None
    return tables


def on_one_device(test, golden_dir):
    """Runs a test of this file in a process without virtual devices.

    They leave a convolution one thread, and the other order of its sums is what Adam, which divides by the gradient's
    size, lifts to 2.4e-6 in 2 of the 72 weights of one tensor; with the threads of a whole device it is 5e-7.
    """
    command = [sys.executable, "-m", "pytest", "-n", "0", f"{__file__}::{test}", f"--golden-dir={golden_dir}"]
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    done = subprocess.run(command, env=os.environ | flags, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_cyclegan(golden, request):
    if jax.local_device_count() > 1:
        on_one_device("test_cyclegan", request.config.getoption("--golden-dir"))
        return
    file = golden("nightlab", "cyclegan_train_step")
    lr, b1, b2, *cycle, identity, pool = (float(v) for v in file["hyper_lr_beta1_beta2_lambdaA_lambdaB_idt_pool"])
    iterations, batch_size = len(file["loss.G_A"]), len(file["it0.A"])
    method = RecordedDraws(
        model=generator_of(state_of(file, "init.G_A.")),
        optimizer=Optimizer(name="adam", lr=lr, b1=b1, b2=b2, weight_decay=0.0, schedule="constant"),
        training=Training(iterations),
        discriminator_features=len(file["init.D_A.model.0.bias"]),
        cycle=tuple(cycle),
        identity=identity,
        buffer=int(pool),
        recorded=recorded_draws(file, iterations, batch_size),
    )
    batches = [
        {"source": {"image": nhwc(file[f"it{i}.A"])}, "target": {"image": nhwc(file[f"it{i}.B"])}}
        for i in range(iterations)
    ]
    state = filled(method, file, batches[0])

    @jax.jit
    def first_gradients(params):
        part = {domain: to_signed(batches[0][stream]["image"]) for domain, stream in (("a", "source"), ("b", "target"))}
        fakes = {f"shown_{d}": method._to(params["generators"], d, part[o]) for d, o in (("a", "b"), ("b", "a"))}
        own = {name: player.parameters(params) for name, player in method.players.items()}
        loss = functools.partial(method.generator_loss, state)
        generators = jax.grad(loss, has_aux=True)(own["generators"], {}, part, 0)[0]
        judges = jax.grad(method.discriminator_loss, has_aux=True)(own["discriminators"], {}, part | fakes, 0)[0]
        return generators | judges

    check(file, "grad0", first_gradients(state.params), lambda value: 1e-4 * largest(value))
    step = jax.jit(method.train_step)
    weights = {
        "cycle": dict(zip("ab", cycle, strict=True)),
        "identity": {d: identity * w for d, w in zip("ab", cycle, strict=True)},
    }
    for i in range(iterations):
        state, scalars = step(state, batches[i])
        ours = {
            "D_A": scalars["discriminator_b"],
            "D_B": scalars["discriminator_a"],
            "G_A": scalars["adversarial_b"],
            "G_B": scalars["adversarial_a"],
            "cycle_A": weights["cycle"]["a"] * scalars["cycle_a"],
            "cycle_B": weights["cycle"]["b"] * scalars["cycle_b"],
            "idt_A": weights["identity"]["b"] * scalars["identity_b"],
            "idt_B": weights["identity"]["a"] * scalars["identity_a"],
        }
        for name, value in ours.items():
            np.testing.assert_allclose(value, file[f"loss.{name}"][i], rtol=2e-5, err_msg=f"{name}, iteration {i}")
    check(file, "final", state.params, lambda value: 2e-6)


def vgg_channels(state):
    """Widths by group of torchvision's numbering."""
    indices, groups = sorted(int(name.split(".")[0]) for name in state if name.endswith("weight")), [[]]
    for before, index in zip([indices[0] - 2, *indices[:-1]], indices, strict=True):
        if index - before == 3:
            groups.append([])
        groups[-1].append(len(state[f"{index}.bias"]))
    return tuple(map(tuple, groups))


@pytest.mark.slow
def test_pix2pixhd(golden):
    file = golden("nightlab", "pix2pixhd_train_step")
    vgg, iterations = state_of(file, "vgg."), len(file["losses"])
    scales = len({name.split("_")[0] for name in state_of(file, "init.D.")})
    method = Pix2PixHD(
        model=generator_of(state_of(file, "init.G.")),
        optimizer=Optimizer(name="adam", lr=2e-4, b1=0.5, weight_decay=0.0, schedule="constant"),
        training=Training(iterations),
        translates="image",
        discriminator_features=len(file["init.D.scale0_layer0.0.bias"]),
        scales=scales,
        vgg=VGGLoss(vgg_channels(vgg), "official"),
    )
    batches = [
        {"target": {"image": nhwc(file[f"it{i}.input"]), "reference": nhwc(file[f"it{i}.target"])}}
        for i in range(iterations)
    ]
    state = filled(method, file, batches[0])
    features = from_torch({f"features.{name}": value for name, value in vgg.items()}, state.frozen["vgg"])
    state = state.replace(frozen={"vgg": features})

    @jax.jit
    def first_gradients(state):
        part, grads = method._pair(batches[0]), {}
        losses = {"generators": method.generator_loss, "discriminators": method.discriminator_loss}
        for name, player in method.players.items():
            loss = functools.partial(losses[name], state)
            grads |= jax.grad(loss, has_aux=True)(player.parameters(state.params), {}, part, 0)[0]
        return grads

    check(file, "grad0", first_gradients(state), lambda value: 1e-4 * largest(value))
    step = jax.jit(method.train_step)

    @jax.jit
    def judged(state, batch):
        """What the discriminators' loss is of, before the step: real and generated images."""
        part, own = method._pair(batch), state.params["discriminator"]
        real = translation.generator_loss([maps[-1] for maps in method._judged(own, part["condition"], part["target"])])
        return real, 2 * method.discriminator_loss(state, {"discriminator": own}, {}, part, 0)[0] - real

    for i in range(iterations):
        real, fake = judged(state, batches[i])
        state, scalars = step(state, batches[i])
        g_gan, g_feat, g_vgg, d_real, d_fake = file["losses"][i]
        ours = {
            "discriminator on real": (real, d_real),
            "discriminator on fake": (fake, d_fake),
            "adversarial": (scalars["adversarial"], g_gan),
            "feature matching": (method.feature_weight * scalars["feature_matching"], g_feat),
            "vgg": (method.feature_weight * scalars["vgg"], g_vgg),
            "discriminator": (scalars["discriminator"], 0.5 * (d_real + d_fake)),
        }
        for name, (value, expected) in ours.items():
            np.testing.assert_allclose(value, expected, rtol=2e-5, err_msg=f"{name}, iteration {i}")
    check(file, "final", state.params, lambda value: 2e-6)
