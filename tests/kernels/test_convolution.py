"""The convolution primitive is `lax.conv_general_dilated` under every transformation."""

import os
import subprocess
import sys
from functools import partial

import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from synscale_jax.kernels import conv_general_dilated, convolution_path, onednn
from synscale_jax.kernels.convolution import convolution

LAYOUT = ("NHWC", "HWIO", "NHWC")
WINDOWS = [
    pytest.param(kernel, stride, padding, id=f"k{kernel}-s{stride}-{padding}")
    for kernel in (1, 3, 5)
    for stride in (1, 2)
    for padding in ("SAME", "torch", "wide")
    if padding != "wide" or kernel == 3
]


def pads(kernel, padding):
    return {"torch": ((kernel // 2,) * 2,) * 2, "wide": ((0, 3), (2, 1))}.get(padding, padding)


def arrays(shape, kernel, dtype=jnp.float32, seed=0):
    a, b = jax.random.split(jax.random.key(seed))
    return jax.random.normal(a, shape, dtype), jax.random.normal(b, kernel, dtype)


def close(ours, theirs, tolerance=1e-5):
    def check(a, b):
        assert a.shape == b.shape and a.dtype == b.dtype
        b = np.asarray(b, np.float64)
        scale = np.abs(b).max() if b.size else 1.0
        np.testing.assert_allclose(np.asarray(a, np.float64), b, rtol=0, atol=tolerance * scale)

    jax.tree.map(check, ours, theirs)


def pair(strides=(1, 1), padding="SAME"):
    reference = partial(
        lax.conv_general_dilated, window_strides=strides, padding=padding, dimension_numbers=LAYOUT
    )
    return partial(convolution, strides=strides, padding=padding), reference


def loss(conv, x, kernel):
    return (conv(x, kernel) ** 3).mean()


@pytest.fixture(scope="module", params=["canonical", "onednn"])
def path(request):
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "canonical":
            patch.setattr(onednn, "covers", lambda *_, **__: False)
        elif reason := onednn.why_not():
            pytest.skip(reason)
        jax.clear_caches()
        yield request.param
    jax.clear_caches()


@pytest.mark.parametrize("path", ["canonical"], indirect=True)
@pytest.mark.parametrize(("kernel", "stride", "padding"), WINDOWS)
def test_gradients_of_every_window(path, kernel, stride, padding):
    x, k = arrays((2, 7, 6, 3), (kernel, kernel, 3, 4))

    @partial(jax.jit, static_argnums=0)
    def pullback(conv, x, k):
        y, transpose = jax.vjp(conv, x, k)
        return y, transpose(jnp.cos(y))

    close(*(pullback(conv, x, k) for conv in pair((stride, stride), pads(kernel, padding))))


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 2, "torch"), (1, 2, "wide")])
def test_second_derivatives(path, kernel, stride, padding):
    x, k = arrays((2, 7, 6, 3), (kernel, kernel, 3, 4))
    tangents = arrays(x.shape, k.shape, seed=1)

    @partial(jax.jit, static_argnums=0)
    def second(conv, x, k):
        gradient = jax.grad(partial(loss, conv), (0, 1))
        return (
            jax.jvp(gradient, (x, k), tangents),  # forward over reverse
            jax.grad(lambda *a: sum(map(jnp.vdot, gradient(*a), tangents)), (0, 1))(x, k),
        )

    close(*(second(conv, x, k) for conv in pair((stride, stride), pads(kernel, padding))))


@pytest.mark.parametrize(("of_x", "of_k"), [(0, None), (None, 0), (0, 0), (2, 4), (4, 1)])
def test_vmap(path, of_x, of_k):
    x, k = arrays((2, 7, 6, 3), (3, 3, 3, 4))
    scale = jnp.array([1.0, -2.0, 3.0])
    xs = x if of_x is None else jnp.stack([s * x for s in scale], of_x)
    ks = k if of_k is None else jnp.stack([k + s for s in scale], of_k)
    ours, theirs = pair((2, 1), ((1, 1), (1, 1)))
    for f in (lambda c: c, lambda c: jax.grad(partial(loss, c), (0, 1))):
        close(*(jax.jit(jax.vmap(f(c), (of_x, of_k)))(xs, ks) for c in (ours, theirs)))


def test_vmap_nests(path):
    x, k = arrays((2, 3, 2, 5, 5, 2), (2, 3, 3, 2, 2))
    ours, theirs = pair()
    for inner, outer in (((0, None), (0, 0)), ((None, 0), (0, None)), ((0, None), (0, None))):
        xs = x if inner[0] == 0 else x[:, 0]
        ks = k[0] if outer[1] is None and inner[1] is None else k
        f = [jax.vmap(jax.vmap(c, inner), outer) for c in (ours, theirs)]
        g = [jax.jit(jax.value_and_grad(partial(loss, c), (0, 1))) for c in f]
        close(g[0](xs, ks), g[1](xs, ks))


def test_vmap_over_nothing(path):
    x, k = arrays((0, 2, 5, 5, 2), (0, 3, 3, 2, 2))
    assert jax.vmap(convolution)(x, k).shape == (0, 2, 5, 5, 2)
    assert jax.vmap(convolution, (0, None))(x, jnp.ones((3, 3, 2, 4))).shape == (0, 2, 5, 5, 4)


def test_scan_of_gradient_steps(path):
    x, k = arrays((4, 6, 6, 2), (3, 3, 2, 2))

    def train(conv):
        def step(k, x):
            value, gradient = jax.value_and_grad(partial(loss, conv), argnums=1)(x[None], k)
            return k - 0.1 * gradient, value

        return lax.scan(step, k, x)

    close(*map(train, pair()))


def test_jacobians(path):
    x, k = arrays((1, 3, 3, 1), (3, 3, 1, 2))
    for jacobian in (jax.jacfwd, jax.jacrev):
        close(*(jax.jit(jacobian(lambda k, c=c: c(x, k) ** 2))(k) for c in pair((2, 2))))


def test_gradients_agree_with_finite_differences():
    with jax.enable_x64(True):
        x, k = arrays((2, 5, 4, 2), (3, 3, 2, 3), jnp.float64)
        dx, dk = arrays(x.shape, k.shape, jnp.float64, seed=1)
        f = jax.jit(partial(loss, partial(convolution, strides=(2, 2), padding=((1, 1), (1, 1)))))
        _, slope = jax.jvp(f, (x, k), (dx, dk))
        by_gradient = sum(map(jnp.vdot, jax.grad(f, (0, 1))(x, k), (dx, dk)))
        h = 1e-6
        difference = (f(x + h * dx, k + h * dk) - f(x - h * dx, k - h * dk)) / (2 * h)
        np.testing.assert_allclose([slope, by_gradient], difference, rtol=1e-7)


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 2e-2), ("float64", 1e-13)])
def test_other_dtypes(dtype, tolerance):
    with jax.enable_x64(True):
        x, k = arrays((2, 6, 6, 3), (3, 3, 3, 4), dtype)
        results = [
            jax.jit(jax.value_and_grad(partial(loss, c), (0, 1)))(x, k) for c in pair((2, 2))
        ]
        close(*results, tolerance)


@pytest.mark.parametrize("shape", [(0, 5, 5, 3), (2, 5, 5, 0), (2, 1, 1, 3)])
def test_degenerate_shapes(path, shape):
    x, k = arrays(shape, (3, 3, shape[3], 4))
    for padding in ("SAME", "VALID"):
        ours, theirs = pair(padding=padding)
        close(ours(x, k), theirs(x, k))
        gradients = jax.grad(lambda x, k, c=ours: c(x, k).sum(), (0, 1))(x, k)
        assert [g.shape for g in gradients] == [x.shape, k.shape]


def test_plain_lowering_for_other_platforms():
    """What GPU and TPU run: lax's own transposes, no canonical form."""
    x, k = arrays((2, 6, 6, 3), (3, 3, 3, 4))
    ours, theirs = (
        jax.jit(jax.grad(partial(loss, c), (0, 1)))
        .trace(x, k)
        .lower(lowering_platforms=("cuda",))
        .as_text()
        for c in pair((2, 2))
    )
    count = "stablehlo.convolution("
    assert ours.count(count) == theirs.count(count) == 3
    assert ours.count("stablehlo.transpose") == theirs.count("stablehlo.transpose")


SHARDED = """
import re
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from synscale_jax.kernels import convolution_path
from synscale_jax.kernels.convolution import convolution

assert jax.device_count() == 8 and convolution_path().startswith("PATH")
mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
split, whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
a, b = jax.random.split(jax.random.key(0))
x, k = jax.random.normal(a, (20, 8, 7, 3)), jax.random.normal(b, (3, 3, 3, 4))
loss = lambda k, x: (convolution(x, k, strides=(2, 2)) ** 2).sum()
step = jax.value_and_grad(loss, (0, 1))

def check(ours, reference):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(reference), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * abs(b).max())

def rows(f, *args):
    text = f.lower(*args).compile().as_text()
    call = r"f32.(\\d+),[^ ]* custom-call.*synscale_convolution"
    return sorted(int(n) for n in re.findall(call, text))

# A batch that 8 divides, placed by the caller, and others that the program splits unevenly.
f = jax.jit(step)
for n in (16, 20, 3):
    reference = f(k, x[:n])
    if n == 16:
        g, args = f, (jax.device_put(k, whole), jax.device_put(x[:n], split))
    else:
        constrain = lambda x: jax.lax.with_sharding_constraint(x, split)
        g, args = jax.jit(lambda k, x: step(k, constrain(x))), jax.device_put((k, x[:n]), whole)
    check(g(*args), reference)
    # Each call gets one device's images; the kernel's gradient has 3 rows.
    part = -(-n // 8)
    assert rows(g, *args) == (sorted([part, part, 3]) if convolution_path() != "canonical" else [])

@jax.jit
@jax.shard_map(mesh=mesh, in_specs=(P(), P("data")), out_specs=(P(), (P(), P("data"))))
def mapped(k, x):
    value, (of_k, of_x) = step(k, x)  # the gradient of a replicated k is summed
    return jax.lax.psum(value, "data"), (of_k, of_x)

check(mapped(k, x[:16]), f(k, x[:16]))

summed = jax.pmap(lambda k, x: jax.lax.psum(step(k, x)[1][0], "data"), "data", in_axes=(None, 0))
check(summed(k, x[:16].reshape(8, 2, 8, 7, 3))[0], f(k, x[:16])[1][0])

# Sharding in types is left to lax.
explicit = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Explicit,))
with jax.set_mesh(explicit):
    xs = jax.device_put(x[:16], NamedSharding(explicit, P("data")))
    y = jax.jit(convolution)(xs, k)
assert jax.typeof(y).sharding.spec[0] == "data"
check(y, convolution(x[:16], k))
"""


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"JAX_PLATFORMS": "cpu"} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("path", ["canonical", "onednn"], indirect=True)
def test_eight_devices_equal_one(path):
    done = run(
        SHARDED.replace("PATH", path),
        XLA_FLAGS="--xla_force_host_platform_device_count=8",
        SYNSCALE_ONEDNN=str(int(path == "onednn")),
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"strides": (2, 2), "padding": ((1, 1), (1, 1))},
        {"padding": "CIRCULAR"},
        {"kernel_dilation": 2},
        {"input_dilation": 2, "padding": 1},
        {"feature_group_count": 2},
        {"kernel_size": (3,)},
        {"precision": lax.Precision.HIGHEST},
    ],
    ids=str,
)
def test_drop_in_for_flax(options):
    options = {"features": 4, "kernel_size": (3, 3)} | options
    x = jax.random.normal(jax.random.key(0), (2, 6, 6, 2)[: len(options["kernel_size"]) + 2])
    x = x[..., :2]
    outputs = [
        nn.Conv(conv_general_dilated=c, **options).init_with_output(jax.random.key(1), x)
        for c in (conv_general_dilated, None)
    ]
    close(*outputs)


def test_what_the_primitive_covers():
    x, k = arrays((2, 6, 6, 2), (3, 3, 2, 2))

    def runs_on(*args, **kwargs):
        jaxpr = jax.make_jaxpr(lambda x, k: conv_general_dilated(x, k, *args, **kwargs))(x, k)
        return {e.primitive.name for e in jaxpr.eqns} & {
            "synscale_convolution",
            "conv_general_dilated",
        }

    assert runs_on((1, 1), "SAME", dimension_numbers=LAYOUT) == {"synscale_convolution"}
    for other in (
        {"padding": "SAME", "dimension_numbers": ("NHWC", "HWIO", "NCHW")},
        {"padding": "SAME", "dimension_numbers": LAYOUT, "rhs_dilation": (2, 2)},
        {"padding": ((-1, 0), (0, 0)), "dimension_numbers": LAYOUT},
        {"padding": "SAME", "dimension_numbers": LAYOUT, "preferred_element_type": "float32"},
    ):
        assert runs_on((1, 1), **other) == {"conv_general_dilated"}


@pytest.mark.parametrize(
    ("x", "kernel", "options", "error", "message"),
    [
        ((2, 6, 6), (3, 3, 2, 2), {}, ValueError, r"\(2, 6, 6\) and \(3, 3, 2, 2\)"),
        ((2, 6, 6, 3), (3, 3, 2, 2), {}, ValueError, r"\(2, 6, 6, 3\) and \(3, 3, 2, 2\)"),
        ((2, 6, 6, 2), (3, 3, 2, 2), {"strides": (0, 1)}, ValueError, r"\(0, 1\)"),
        ((2, 6, 6, 2), (3, 3, 2, 2), {"padding": ((-1, 0), (0, 0))}, ValueError, r"-1"),
        ((2, 6, 6, 2), (3, 3, 2, 2), {"dtype": jnp.int32}, TypeError, "int32"),
    ],
)
def test_bad_input(x, kernel, options, error, message):
    dtype = options.pop("dtype", jnp.float32)
    with pytest.raises(error, match=message):
        convolution(jnp.ones(x, dtype), jnp.ones(kernel, dtype), **options)


def test_symbolic_batch_is_left_to_lax():
    (n,) = jax.export.symbolic_shape("n")
    exported = jax.export.export(jax.jit(lambda x: convolution(x, jnp.ones((3, 3, 2, 2)))))
    program = exported(jax.ShapeDtypeStruct((n, 5, 5, 2), jnp.float32))
    assert program.call(jnp.ones((3, 5, 5, 2))).shape == (3, 5, 5, 2)


def test_path_names_the_platform():
    assert (convolution_path() == "lax") == (jax.default_backend() != "cpu")
