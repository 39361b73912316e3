"""Two training iterations of UNIT against the official program.

Tolerances of the golden README: losses 1e-4 and 2e-3 relative at iterations 0 and 1, translations 2e-3 absolute,
    parameters
1e-2 in relative L2 for each tensor. Biases before an instance norm have no true gradient and are left out.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.optim import Optimizer
from nightjax.core.step import Training, gradient_step
from nightjax.interop.official_names import VGG16_CAFFE, from_official
from nightjax.interop.torch_weights import from_torch, to_torch
from nightjax.methods.unit import Perceptual, Unit
from nightjax.models.unit import Discriminators, SeparateVAEs
from tests.helpers.golden import largest, nchw, nhwc, sizes, state_of, unit_options

RTOL = (1e-4, 2e-3)
TERMS = {
    "recon_x_{x}": "reconstruction_{x}",
    "recon_kl_{x}": "code_{x}",
    "cyc_x_{x}": "cycle_{x}",
    "adv_{x}": "adversarial_{x}",
    "vgg_{x}": "perceptual_{x}",
}
ONE_SIDED = {"recon_kl_cyc_aba": "cycle_code_b", "recon_kl_cyc_bab": "cycle_code_a", "total": "loss"}
"""Official names of losses to ours; the code of a translation of a is that of b's encoder."""

NO_GRADIENT = re.compile(r"enc\..*\.conv\.bias$|dec\.model\.0\..*\.conv\.bias$")
"""Biases that feed an instance norm."""


def count(names, pattern):
    return len({match[1] for name in names if (match := re.match(pattern, name))})


@pytest.fixture(scope="module")
def file(golden):
    return golden("unit_fid", "unit_train_two_iters")


@pytest.fixture(scope="module")
def method(file, golden):
    settings = golden.settings("unit_fid", "unit_train_two_iters")
    generator, judge = state_of(file, "w0/gen_a/"), state_of(file, "w0/dis_a/")
    fall, groups = float(file["lr_1"] / file["lr_0"]), {}
    for name, value in sorted(state_of(file, "w0/vgg/").items()):
        if name.endswith(".bias"):
            groups.setdefault(name[4], []).append(len(value))
    return Unit(
        model=SeparateVAEs(
            features=len(generator["enc.model.0.conv.bias"]),
            downsamplings=count(generator, r"enc\.model\.(\d+)\.conv") - 1,
            blocks=count(generator, r"dec\.model\.0\.model\.(\d+)\."),
            **unit_options(settings),
        ),
        # The schedule takes a step before the first update.
        optimizer=Optimizer(
            name="adam",
            lr=float(file["lr_0"]) / fall,
            b1=0.5,
            weight_decay=settings.get("weight_decay", 1e-2),
            decay_vectors=True,
            schedule="step",
            step_every=1,
            step_factor=fall,
        ),
        training=Training(iterations(file)),
        discriminator=Discriminators(
            features=len(judge["cnns.0.0.conv.bias"]),
            layers=count(judge, r"cnns\.0\.(\d+)\.conv"),
            scales=count(judge, r"cnns\.(\d+)\."),
            norm=settings.get("discriminator_norm", "none").replace("ln", "layer"),
        ),
        perceptual=Perceptual(channels=tuple(tuple(group) for group in groups.values())),
    )


@pytest.fixture(scope="module")
def first(method, file):
    image = nhwc(file["x_a_0"])
    batch = {name: {"image": image} for name in ("source", "target")}
    shapes = jax.eval_shape(method.init, jax.random.key(0), batch)
    params = {}
    for domain in "ab":
        own = {"params": shapes.params["generators"][f"gen_{domain}"]}
        params[f"gen_{domain}"] = from_torch(state_of(file, f"w0/gen_{domain}/"), own)["params"]
    params = {"generators": params}
    for domain in "ab":
        own = {"params": shapes.params[f"discriminator_{domain}"]}
        params[f"discriminator_{domain}"] = from_torch(state_of(file, f"w0/dis_{domain}/"), own)["params"]
    vgg = from_torch(from_official(state_of(file, "w0/vgg/"), VGG16_CAFFE), shapes.frozen["vgg"])
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes.opt_state)
    return shapes.replace(step=jnp.int32(0), params=params, opt_state=zeros, frozen={"vgg": vgg})


def iterations(file):
    return len(sizes(file, r"x_a_(\d+)"))


def inputs(file, i):
    """Images, and noise by our names."""
    judged, direct = file[f"noise_dis_{i}"], file[f"noise_gen_{i}"]
    order = {"judged": judged, "direct": direct[:2], "cycle": direct[2:]}
    noise = {f"{turn}_{domain}": nhwc(x) for turn, pair in order.items() for domain, x in zip("ab", pair, strict=True)}
    return {domain: nhwc(file[f"x_{domain}_{i}"]) for domain in "ab"}, noise


@pytest.fixture(scope="module")
def run(method, first, file):
    """The last state and the scalars of every iteration."""
    step, state, scalars = jax.jit(method.step_with_noise), first, []
    for i in range(iterations(file)):
        state, values = step(state, *inputs(file, i))
        scalars.append(values)
    return state, scalars


def test_losses_and_rates(method, run, file):
    names = {official.format(x=x): ours.format(x=x) for official, ours in TERMS.items() for x in "ab"} | ONE_SIDED
    found = {name.removeprefix("loss_gen_").rpartition("_")[0] for name in file if name.startswith("loss_gen_")}
    assert found == set(names)
    for i, scalars in enumerate(run[1]):
        for official, ours in names.items():
            np.testing.assert_allclose(
                scalars[ours], file[f"loss_gen_{official}_{i}"], rtol=RTOL[min(i, 1)], err_msg=official
            )
        for domain in "ab":
            expected = file[f"loss_dis_{domain}_{i}"]
            np.testing.assert_allclose(
                scalars[f"discriminator_{domain}"], expected, rtol=RTOL[min(i, 1)], err_msg=domain
            )
        np.testing.assert_allclose(scalars["loss_discriminators"], file[f"loss_dis_total_{i}"], rtol=RTOL[min(i, 1)])
        for player in method.players:
            np.testing.assert_allclose(scalars[f"learning_rate_{player}"], file[f"lr_{i}"], rtol=1e-6)


def test_gradients_of_the_autoencoders(method, first, file):
    """At iteration 0, against the discriminators after their turn."""

    def gradients(state, images, noise):
        examples, losses = images | noise, {"discriminators": functools.partial(method.discriminator_loss, state)}
        state, _ = gradient_step(state, method.players, losses, examples, method.training, last=False)
        own = {"generators": state.params["generators"]}
        loss = functools.partial(method.generator_loss, state)
        return jax.grad(loss, has_aux=True)(own, {}, examples, 0)[0]["generators"]

    grads = jax.jit(gradients)(first, *inputs(file, 0))
    found = {
        f"gen_{domain}/{name}": value
        for domain in "ab"
        for name, value in to_torch({"params": grads[f"gen_{domain}"]}).items()
    }
    norms = dict(zip(file["gradnorm0_names"].tolist(), file["gradnorm0_values"], strict=True))
    checked = 0
    for name, norm in norms.items():
        if NO_GRADIENT.search(name):
            continue
        matches = [key for key in found if key.replace("/", ".") == name.replace("/", ".")]
        assert len(matches) == 1, f"{name}: {list(found)[:2]}"
        np.testing.assert_allclose(np.linalg.norm(found[matches[0]]), norm, rtol=1e-3, err_msg=name)
        checked += 1
    assert checked
    for name, expected in state_of(file, "grad0/").items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-3, atol=1e-3 * largest(expected), err_msg=name)


def test_parameters_after_two_iterations(run, file):
    params = run[0].params
    found = {"gen_b": to_torch({"params": params["generators"]["gen_b"]})}
    found["dis_b"] = to_torch({"params": params["discriminator_b"]})
    for network, actual in found.items():
        for name, expected in state_of(file, f"w2/{network}/").items():
            if network == "gen_b" and NO_GRADIENT.search(name):
                continue
            error = np.linalg.norm(actual[name] - expected) / (np.linalg.norm(expected) or 1)
            assert error < 1e-2, f"{network}/{name}: {error}"


def test_translations_after_two_iterations(method, run, file):
    params = run[0].params["generators"]
    for origin, domain in (("a", "b"), ("b", "a")):
        code = method.model.apply({"params": params}, nhwc(file[f"x_{origin}_eval"]), origin, method="encode")
        picture = method.model.apply({"params": params}, code, domain, method="decode")
        np.testing.assert_allclose(nchw(picture), file[f"eval_x_{origin}{domain}"], rtol=0, atol=2e-3)
