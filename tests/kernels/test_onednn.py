"""oneDNN computes what lax computes, or steps aside with a reason."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jax import lax

from synscale_jax.kernels import (
    _native,
    _small_images,
    available,
    convolution_path,
    onednn,
    why_not,
)
from synscale_jax.kernels.convolution import convolution

needs_onednn = pytest.mark.skipif(not available(), reason=why_not() or "")


@st.composite
def problems(draw):
    kernel = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    pads = draw(st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * 2))
    least = [max(1, k - low - high) for k, (low, high) in zip(kernel, pads, strict=True)]
    size = [draw(st.integers(n, max(n, 19))) for n in least]
    batch, channels, out = (
        draw(st.integers(1, 5)),
        draw(st.integers(1, 40)),
        draw(st.integers(1, 40)),
    )
    strides = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    return (batch, *size, channels), (*kernel, channels, out), strides, pads


@needs_onednn
@settings(max_examples=20, deadline=None, derandomize=True)
@given(problems())
@example(((1, 1, 1, 1), (1, 1, 1, 1), (1, 1), ((0, 0), (0, 0))))
@example(((2, 5, 5, 16), (3, 3, 16, 16), (1, 1), ((1, 1), (1, 1))))  # the blocked layouts
@example(((3, 6, 7, 16), (3, 3, 16, 8), (2, 2), ((1, 1), (1, 1))))
@example(((2, 5, 5, 8), (3, 3, 8, 5), (2, 1), ((1, 1), (1, 1))))
@example(((2, 4, 4, 3), (1, 1, 3, 16), (1, 1), ((3, 3), (3, 3))))  # windows that see nothing
@example(((2, 8, 8, 17), (3, 3, 17, 33), (2, 2), ((0, 0), (0, 0))))  # an edge no window reaches
def test_agrees_with_lax_in_float64(problem):
    x_shape, k_shape, strides, pads = problem
    rng = np.random.default_rng(0)
    x, k = rng.standard_normal(x_shape, np.float32), rng.standard_normal(k_shape, np.float32)
    y = jax.eval_shape(partial(convolution, strides=strides, padding=pads), x, k)
    g = rng.standard_normal(y.shape, np.float32)

    def pullback(conv, *arrays):
        y, transpose = jax.vjp(conv, *arrays[:2])
        return y, *transpose(arrays[2])

    ours = jax.jit(partial(pullback, partial(convolution, strides=strides, padding=pads)))
    tiny = _small_images.covers(x, k, result="output", size=y.shape[1:3])
    calls = ours.lower(x, k, g).as_text().count("@synscale_convolution")
    assert calls == (0 if tiny else 3)
    with jax.enable_x64(True):
        layout = ("NHWC", "HWIO", "NHWC")
        conv = partial(
            lax.conv_general_dilated,
            window_strides=strides,
            padding=pads,
            dimension_numbers=layout,
        )
        arrays = [a.astype(np.float64) for a in (x, k, g)]
        theirs = [np.asarray(a) for a in jax.jit(partial(pullback, conv))(*arrays)]
    for a, b in zip(ours(x, k, g), theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * max(np.abs(b).max(), 1e-30))


@needs_onednn
def test_gradients_agree_with_finite_differences():
    a, b = jax.random.split(jax.random.key(0))
    x, k = jax.random.normal(a, (3, 7, 6, 16)), jax.random.normal(b, (3, 3, 16, 16))
    loss = jax.jit(lambda x, k: (convolution(x, k, strides=(2, 2)) ** 2).mean())
    for i, gradient in enumerate(jax.grad(loss, (0, 1))(x, k)):
        step = jax.random.normal(jax.random.key(1), gradient.shape)
        move = (step, 0.0) if i == 0 else (0.0, step)
        high, low = (loss(x + sign * move[0], k + sign * move[1]) for sign in (1, -1))
        # Exact for a loss that is quadratic in each argument.
        np.testing.assert_allclose(jnp.vdot(gradient, step), (high - low) / 2, rtol=1e-3)


@needs_onednn
@pytest.mark.parametrize("channels", [(3, 16), (16, 16), (16, 32), (32, 32), (64, 64), (1, 1)])
@pytest.mark.parametrize("batch", [1, 50])
def test_never_the_reference_implementation(batch, channels):
    for stride in (1, 2):
        y = (batch, 32 // stride, 32 // stride, channels[1])
        x, k = (batch, 32, 32, channels[0]), (3, 3, *channels)
        operands = {"output": (x, k, y[1:3]), "input": (y, k, x[1:3]), "kernel": (x, y, k[:2])}
        for result, (a, b, size) in operands.items():
            problem = onednn.problem_of(a, b, result, size, (stride, stride), ((1, 1), (1, 1)))
            assert not onednn.implementation(problem).startswith(("ref", "simple"))


def lowered(dtype, x=(2, 6, 6, 3), k=(3, 3, 3, 4)):
    with jax.enable_x64(True):
        shapes = jax.ShapeDtypeStruct(x, dtype), jax.ShapeDtypeStruct(k, dtype)
        return jax.jit(convolution).lower(*shapes).as_text()


@needs_onednn
def test_only_float32_reaches_the_kernel():
    assert "@synscale_convolution" in lowered("float32")
    for dtype in ("bfloat16", "float16", "float64"):
        assert "@synscale_convolution" not in lowered(dtype)
    assert "@synscale_convolution" not in lowered("float32", x=(0, 6, 6, 3))


@needs_onednn
def test_failed_calls_raise_their_reason():
    call = jax.ffi.ffi_call("synscale_convolution", jax.ShapeDtypeStruct((2, 6, 6, 4), jnp.float32))
    x, k = jnp.ones((2, 6, 6, 3)), jnp.ones((3, 3, 3, 4))
    problem = onednn.problem_of(x.shape, k.shape, "output", (6, 6), (1, 1), ((1, 1), (1, 1)))

    def run(**changed):
        fields = np.array(problem, np.int64)
        for index, value in changed.items():
            fields[int(index[1:])] = value
        return jax.block_until_ready(call(x, k, problem=fields))

    assert run().shape == (2, 6, 6, 4)
    with pytest.raises(jax.errors.JaxRuntimeError, match="sizes of the problem"):
        run(_1=200)
    with pytest.raises(jax.errors.JaxRuntimeError, match="oneDNN: "):
        run(_10=2)  # strides that do not give this output
    with pytest.raises(jax.errors.JaxRuntimeError, match="result"):
        run(_0=3)


@needs_onednn
def test_bits_repeat():
    a, b = jax.random.split(jax.random.key(0))
    x, k = jax.random.normal(a, (13, 9, 9, 16)), jax.random.normal(b, (3, 3, 16, 16))
    f = jax.jit(jax.grad(lambda x, k: (convolution(x, k) ** 2).mean(), (0, 1)))
    first = f(x, k)
    for _ in range(20):
        jax.tree.map(np.testing.assert_array_equal, f(x, k), first)


@needs_onednn
def test_concurrent_calls_share_the_threads_there_are():
    rng = np.random.default_rng(0)
    shapes = [((n, 9, 9, 5), (3, 3, 5, 16)) for n in (7, 8, 9) for _ in range(4)]
    inputs = [[rng.standard_normal(s, np.float32) for s in pair] for pair in shapes]
    f = jax.jit(jax.grad(lambda x, k: (convolution(x, k) ** 2).mean(), (0, 1)))

    def work(arrays):
        return [np.asarray(g) for g in f(*arrays)]

    alone = list(map(work, inputs))
    before = len(os.listdir("/proc/self/task"))
    with ThreadPoolExecutor(6) as pool:
        for _ in range(5):
            jax.tree.map(np.testing.assert_array_equal, list(pool.map(work, inputs)), alone)
        # An OpenMP team for each of the six callers would add another six.
        assert len(os.listdir("/proc/self/task")) <= before + 6


REPORT = """
import logging, numpy as np
logging.basicConfig(format="%(message)s")
import jax, jax.numpy as jnp
from synscale_jax.kernels import available, convolution_path, why_not
from synscale_jax.kernels.convolution import convolution

def native():
    return "libdnnl" in open("/proc/self/maps").read()

jnp.ones((2, 2)) @ jnp.ones((2, 2))
assert not native()  # nothing is loaded before the first convolution
for size in (3, 5):
    y = convolution(jnp.ones((2, size, size, 1)), jnp.ones((3, 3, 1, 1)))
    assert y[0, 1, 1, 0] == 9
assert native() == available()
print(convolution_path(), "|", why_not())
"""


def start(code=REPORT, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ
        | {"JAX_PLATFORMS": "cpu", "SYNSCALE_ONEDNN": "1"}
        | {k: str(v) for k, v in environment.items()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out.strip(), err.strip().splitlines()


@needs_onednn
def test_two_processes_build_at_once_and_a_broken_file_is_rebuilt(tmp_path):
    both = [start(XDG_CACHE_HOME=tmp_path) for _ in range(2)]
    path = f"onednn {onednn.version()} | None"
    assert [finish(process) for process in both] == [(path, [])] * 2
    (built,) = (tmp_path / "synscale_jax").iterdir()
    intact = built.read_bytes()
    for broken in (intact[: len(intact) // 2], b"", intact[:5000] + b"?" + intact[5001:]):
        built.write_bytes(broken)
        assert not _native._intact(built)
    assert finish(start(XDG_CACHE_HOME=tmp_path)) == (path, [])
    assert _native._intact(built)


def test_without_a_compiler_one_line_and_the_pure_path(tmp_path):
    out, err = finish(start(CXX="/bin/false", XDG_CACHE_HOME=tmp_path))
    assert out.startswith("canonical | ")
    assert len(err) == 1 and err[0].startswith("Convolutions run without oneDNN: ")


OLDER_PROCESSOR = """
import jax, jax.numpy as jnp, numpy as np
from functools import partial
from jax import lax
from synscale_jax.kernels import onednn
from synscale_jax.kernels.convolution import convolution

rng = np.random.default_rng(0)
for channels, features in ((3, 16), (16, 16), (17, 33), (64, 64)):
    a, b, size = (4, 8, 7, channels), (3, 3, channels, features), (8, 7)
    problem = onednn.problem_of(a, b, "output", size, (1, 1), ((1, 1), (1, 1)))
    print(onednn.implementation(problem))
    x, k, g = (rng.standard_normal(s) for s in (a, b, (4, 8, 7, features)))
    conv = partial(lax.conv_general_dilated, window_strides=(1, 1), padding="SAME",
                   dimension_numbers=("NHWC", "HWIO", "NHWC"))
    pullback = lambda conv, x, k, g: jax.vjp(conv, x, k)[1](g)
    with jax.enable_x64(True):
        wanted = jax.jit(partial(pullback, conv))(x, k, g)
    found = jax.jit(partial(pullback, convolution))(*(a.astype(np.float32) for a in (x, k, g)))
    for ours, theirs in zip(found, wanted):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * abs(theirs).max())
"""


@needs_onednn
def test_on_a_processor_with_avx2_alone():
    out, _ = finish(start(OLDER_PROCESSOR, ONEDNN_MAX_CPU_ISA="AVX2"))
    names = out.splitlines()
    assert len(names) == 4 and all("avx2" in name for name in names), names


def test_switched_off_without_a_word():
    assert finish(start(SYNSCALE_ONEDNN=0)) == (
        "canonical | switched off by SYNSCALE_ONEDNN=0",
        [],
    )


@needs_onednn
@pytest.mark.parametrize(
    ("environment", "attributes", "reason"),
    [
        ({"CXX": "/bin/false"}, {}, "/bin/false failed with exit status 1"),
        ({"CXX": "no-such-compiler"}, {}, "no C\\+\\+ compiler no-such-compiler"),
        ({"XDG_CACHE_HOME": "/dev/null"}, {}, "no cache for compiled code: .*/dev/null"),
        ({}, {"_LIBRARY": "no-such-onednn"}, "no-such-onednn is not installed"),
        ({}, {"sys": type("", (), {"platform": "win32"})}, "Linux x86-64 only, this is win32"),
    ],
    ids=["compiler fails", "no compiler", "read-only cache", "no oneDNN", "platform"],
)
def test_reasons(environment, attributes, reason, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for name, value in attributes.items():
        monkeypatch.setattr(_native, name, value)
    with pytest.raises(_native.UnavailableError, match=reason):
        _native.load()
    assert not list(Path(tmp_path).rglob("*.so"))


def test_status():
    assert available() == (why_not() is None)
    if jax.default_backend() == "cpu":
        assert convolution_path().startswith("onednn 3" if available() else "canonical")
