"""float64 for a block of a test, never for the process; golden arrays; random networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=(0, 1, 2))
def case(request, golden):
    """One network of the published code: symmetric, directed, directed."""
    with np.load(golden / "noise_prune.npz") as arrays:
        prefix = f"case{request.param}_"
        return {
            name.removeprefix(prefix): arrays[name] for name in arrays if name.startswith(prefix)
        }


def dominant(seed, n, *, symmetric=False, slack=0.1, scale=1.0):
    """A random network whose diagonal outweighs its rows, a third of the synapses missing."""
    draw = np.random.default_rng(seed)
    W = scale * draw.normal(size=(n, n)) * (draw.random((n, n)) < 0.7)
    np.fill_diagonal(W, 0)
    if symmetric:
        W = np.triu(W, 1) + np.triu(W, 1).T
    return jnp.asarray(W - np.diag(np.abs(W).sum(1) + slack))
