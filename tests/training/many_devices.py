"""Compares 8 devices with 1; run as a process, since a process has one number of devices."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from job import digits
from pmap_recipe import make_pmap_step

import synscale_jax as ss
from synscale_jax.models import MLP, cifar_resnet
from synscale_jax.training import methods
from synscale_jax.training.config import TrainConfig
from synscale_jax.training.devices import data_mesh
from synscale_jax.training.program import Program


def difference(a, b):
    """The largest relative difference of any leaf, by the leaf's norm."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(
        (float(np.linalg.norm(x - y) / max(np.linalg.norm(y), 1)) for x, y in pairs), default=0.0
    )


def mesh_report(batch, model):
    """20 steps on 8 devices and on 1, from the same weights over the same batches."""
    config = TrainConfig(batch=batch, chunk_steps=10, train_examples=1000)
    found, compiled = {}, 0
    for count in (1, 8):
        mesh = data_mesh(jax.devices()[:count])
        program = Program(model, methods.synscaw(0.01), config, digits(), mesh)
        key = jax.random.key(0)
        start = state = program.init(key)
        for _ in range(2):
            state, metrics = program.chunk(state, key, 10)
        test = program.evaluate(state, program.splits.test)
        found[count] = jax.device_get((start, state, metrics)), test
        compiled = program._chunk._cache_size()
    ((start, one, metrics1), test1), ((_, eight, metrics8), test8) = found[1], found[8]
    return {
        "differences": {
            "params": difference(eight.params, one.params),
            "batch_stats": difference(eight.batch_stats, one.batch_stats),
            "gaps": difference(eight.opt_state[1].mean_gap, one.opt_state[1].mean_gap),
            "loss": difference(metrics8.loss, metrics1.loss),
            "test_loss": abs(test8.loss - test1.loss) / test1.loss,
        },
        "moved": difference(one.params, start.params),
        "compiled": compiled,
    }


def pmap_report():
    """20 steps of the recipe on 8 devices and on 1."""
    model, data = MLP((16,), 10), digits().train
    optimizer = optax.chain(optax.adam(1e-3), ss.synscaw(0.01, layers=model.layer_table()))
    params = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))["params"]
    found = {}
    for count in (1, 8):
        copy = lambda tree, n=count: jax.tree.map(lambda x: jnp.stack([x] * n), tree)  # noqa: E731
        step = make_pmap_step(model, optimizer)
        state = copy(params), copy(optimizer.init(params))
        for i in range(20):
            images = data.images[40 * i : 40 * i + 40].astype(np.float32) / 255
            labels = data.labels[40 * i : 40 * i + 40]
            shards = (a.reshape(count, 40 // count, *a.shape[1:]) for a in (images, labels))
            *state, _ = step(*state, *shards)
        found[count] = jax.device_get(state[0])
    last = jax.tree.map(lambda x: x[-1], found[8])
    first = jax.tree.map(lambda x: x[0], found[8])
    one = jax.tree.map(lambda x: x[0], found[1])
    return {
        "differences": {"params": difference(first, one), "replicas": difference(first, last)},
        "moved": difference(one, params),
    }


if __name__ == "__main__":
    reports = {
        "resnet, batch 100": lambda: mesh_report(100, cifar_resnet(8, 10, width=4)),
        "resnet, batch 12": lambda: mesh_report(12, cifar_resnet(8, 10, width=4)),
        "mlp, batch 12": lambda: mesh_report(12, MLP((16,), 10)),
        "pmap": pmap_report,
    }
    print(json.dumps({name: reports[name]() for name in sys.argv[1:]}))
