"""Table V against a plain PyTorch loop, its wide row against the matrix rate, a GRU against nn.GRU.

    python benchmarks/table5.py --part rows     # iris, breast cancer, red wine: 10 folds, methods
    python benchmarks/table5.py --part rate     # thyroid against matrix products of as many FLOP
    python benchmarks/table5.py --part gru      # a step of sequential MNIST, 784 steps, 128 units

A turn of `rows` is a number of epochs of every fold with every method, with validation and test
after each epoch on both sides. PyTorch trains one network after the other, as a script would.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import paired

# Enough for a call to be as long as those of an experiment, of 20 epochs and more.
EPOCHS = {"iris": 20, "breast_cancer": 5, "red_wine": 5}
TARGETS = {"iris": 0.1, "breast_cancer": 0.1, "red_wine": 1 / 3}
BATCH, UNITS, PIXELS = 100, 128, 784
THYROID_FLOP_SHARE = 0.6


def our_rows(row: str, epochs: int, names: tuple[str, ...] | None = None):
    """All folds of a row, method after method, in the compiled program."""
    import jax

    from synscale_jax.data import load_table
    from synscale_jax.training.folds import FoldConfig
    from synscale_jax.training.table5 import METHODS, make_program

    program = make_program(row, names or METHODS, FoldConfig(epochs=epochs))
    data, _ = program.data(0)
    state, keys = program.init(0), program.keys(0)

    def run(steps: int) -> None:
        for number in range(len(program.methods)):
            current = state
            for first in range(0, steps, program.epochs_a_call):
                current, _ = program.run(current, data, keys, number, first)
            jax.block_until_ready(current)

    weights = sum(leaf.size for leaf in jax.tree.leaves(state.params)) // program.config.folds
    trained = int(data.train.count.sum())
    answered = int(data.validation.count.sum() + data.test.count.sum())
    flop = weights * (6.0 * trained + 2.0 * answered) * len(program.methods)
    return run, {
        "threads": paired.os.cpu_count(),
        "os_threads": paired.os_threads(),
        "methods": [method.name for method in program.methods],
        "flop_an_epoch": flop,
        "together": program.together,
        "classes": load_table(row).num_classes,
    }


def torch_rows(row: str, adam: str):
    """The same work as a plain loop: one network, one fold, one method after the other."""
    import numpy as np
    import torch  # pyright: ignore[reportMissingImports]
    from torch import nn  # pyright: ignore[reportMissingImports]
    from torch_peer import ADAMS

    from synscale_jax.data import load_table, make_folds
    from synscale_jax.data.tables import prepare

    table = load_table(row)
    classes, width = table.num_classes, table.width
    methods = ["baseline", "dropout", "synscaw", "synscal"]
    if classes:
        methods.insert(2, "confidence_penalty")
    folds = [(fold, prepare(table, fold.train)) for fold in make_folds(table, 0)]

    def network(dropout: bool) -> nn.Sequential:
        layers: list[nn.Module] = [nn.Dropout(0.2)] if dropout else []
        fan_in = table.num_inputs
        for _ in range(4):
            layers += [nn.Linear(fan_in, width), nn.LeakyReLU()]
            layers += [nn.Dropout(0.5)] if dropout else []
            fan_in = width
        return nn.Sequential(*layers, nn.Linear(width, max(1, classes)))

    def synscaw(net: nn.Sequential, drives: list[Any], rate: float) -> None:
        """γ w² ẑ with each neuron's norm restored, target from uniform noise in closed form."""
        with torch.no_grad():
            for layer, drive in drives:
                weight, bias = layer.weight, layer.bias
                deviation = weight.square().sum(1).div(3).sqrt()
                ratio = bias / deviation
                density = torch.exp(-ratio.square() / 2) / (2 * np.pi) ** 0.5
                positive = deviation * density + bias * torch.special.ndtr(ratio)
                gap = 0.01 * bias + 0.99 * positive
                gap -= nn.functional.leaky_relu(drive).mean(0)
                norm = weight.norm(dim=1, keepdim=True)
                weight += rate * weight.square() * gap[:, None]
                weight *= norm / weight.norm(dim=1, keepdim=True)

    def train(method: str, fold: Any, ready: Any, epochs: int) -> None:
        net = network(method == "dropout")
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01, **ADAMS[adam])
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 40, 0.9)
        inputs, targets = torch.from_numpy(ready.inputs), torch.from_numpy(ready.targets)
        targets = targets.long() if classes else targets
        entropy = nn.CrossEntropyLoss(torch.from_numpy(ready.class_weights)) if classes else None
        drives: list[Any] = []
        if method == "synscaw":
            for layer in net:
                if isinstance(layer, nn.Linear):
                    layer.register_forward_hook(
                        lambda layer, _, out: drives.append((layer, out.detach()))
                    )
        for _ in range(epochs):
            net.train()
            order = torch.from_numpy(fold.train)[torch.randperm(len(fold.train))]
            for rows in order.split(BATCH):
                drives.clear()
                optimizer.zero_grad()
                outputs = net(inputs[rows])
                if entropy is not None:
                    loss = entropy(outputs, targets[rows])
                    p = outputs.softmax(1)
                    if method == "synscal":
                        loss = loss + 0.5 * (1 / classes - p).square().sum(1).mean()
                    if method == "confidence_penalty":
                        loss = loss + (p * outputs.log_softmax(1)).sum(1).mean()
                else:
                    loss = (outputs[:, 0] - targets[rows]).square().mean()
                    if method == "synscal":
                        loss = loss + 0.5 * (ready.target_mean - outputs).square().mean()
                loss.backward()
                optimizer.step()
                if method == "synscaw":
                    synscaw(net, drives, 0.01)
            schedule.step()
            net.eval()
            with torch.no_grad():
                for part in (fold.validation, fold.test):
                    rows = torch.from_numpy(part)
                    outputs = net(inputs[rows])
                    if classes:
                        (outputs.argmax(1) == targets[rows]).float().mean().item()
                    else:
                        (outputs[:, 0] - targets[rows]).abs().mean().item()

    def run(steps: int) -> None:
        for method in methods:
            for fold, ready in folds:
                train(method, fold, ready, steps)

    return run, {"threads": torch.get_num_threads(), "methods": methods}


def matrix_rate(flop_a_step: float):
    """Products of large matrices, as many as make these floating-point operations a step."""
    import jax
    import jax.numpy as jnp

    size = 2048
    a = jax.random.normal(jax.random.key(0), (size, size))
    product = jax.jit(jnp.matmul)
    whole, rest = divmod(flop_a_step, 2.0 * size**3)
    thin = jnp.asarray(a[: max(1, round(size * rest / (2.0 * size**3)))])

    def run(steps: int) -> None:
        for _ in range(steps):
            for _ in range(int(whole)):
                product(a, a).block_until_ready()
            product(thin, a).block_until_ready()

    return run, {"threads": paired.os.cpu_count(), "os_threads": paired.os_threads()}


def our_gru():
    """Steps of sequential MNIST's GRU in one compiled call."""
    import jax
    import jax.numpy as jnp
    import optax

    from synscale_jax.models import RecurrentClassifier

    model = RecurrentClassifier("gru", 10, hidden=UNITS)
    images = jax.random.uniform(jax.random.key(0), (BATCH, 28, 28, 1))
    labels = jnp.arange(BATCH) % 10
    params = model.init(jax.random.key(1), images)["params"]
    adam = optax.adam(0.01)

    @functools.partial(jax.jit, static_argnums=2)
    def train(params: Any, state: Any, steps: int) -> Any:
        def step(carry: Any, _: None) -> tuple[Any, Any]:
            params, state = carry

            def loss(params: Any) -> Any:
                logits: Any = model.apply({"params": params}, images, train=True)
                return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

            value, grads = jax.value_and_grad(loss)(params)
            updates, state = adam.update(grads, state)
            return (optax.apply_updates(params, updates), state), value

        return jax.lax.scan(step, (params, state), None, steps)

    state = adam.init(params)
    return lambda steps: jax.block_until_ready(train(params, state, steps)), {
        "threads": paired.os.cpu_count(),
        "os_threads": paired.os_threads(),
    }


def torch_gru(adam: str):
    """The same with PyTorch's nn.GRU."""
    import torch  # pyright: ignore[reportMissingImports]
    from torch import nn  # pyright: ignore[reportMissingImports]
    from torch_peer import ADAMS

    gru, head = nn.GRU(1, UNITS, batch_first=True), nn.Linear(UNITS, 10)
    parameters = [*gru.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=0.01, **ADAMS[adam])
    images, labels = torch.rand(BATCH, PIXELS, 1), torch.arange(BATCH) % 10

    def run(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            states, _ = gru(images)
            nn.functional.cross_entropy(head(states[:, -1]), labels).backward()
            optimizer.step()

    return run, {"threads": torch.get_num_threads()}


def compare_rows(options: Any) -> list[dict[str, Any]]:
    """Ours and PyTorch's on the three rows."""
    rows = []
    for row, epochs in EPOCHS.items():
        mine = paired.Peer("ours", our_rows, {"row": row, "epochs": epochs})
        with paired.Worker(mine, epochs) as a:
            for adam in ("default", "fused"):
                other = paired.Peer(f"PyTorch {adam}", torch_rows, {"row": row, "adam": adam})
                with paired.Worker(other, epochs) as b:
                    label = f"{row}, an epoch of 10 folds × methods, ours / PyTorch {adam} Adam"
                    target = TARGETS[row] if adam == "default" else None
                    rows.append(paired.compare(a, b, options.pairs, target=target, label=label))
    return rows


def compare_rate(options: Any) -> list[dict[str, Any]]:
    """One epoch of thyroid's ten folds against products of matrices; one method a comparison."""
    rows = []
    for method in ("baseline", "synscaw", "dropout"):
        arguments = {"row": "thyroid", "epochs": 1, "names": (method,)}
        with paired.Worker(paired.Peer(method, our_rows, arguments), 1) as a:
            flop = {"flop_a_step": a.about["flop_an_epoch"]}
            with paired.Worker(paired.Peer("matrix products", matrix_rate, flop), 1) as b:
                label = f"thyroid, an epoch of 10 folds, {method} / matrix products of as many FLOP"
                target = 1 / THYROID_FLOP_SHARE
                rows.append(paired.compare(a, b, options.pairs, target=target, label=label))
    return rows


def compare_gru(options: Any) -> list[dict[str, Any]]:
    """A step of sequential MNIST."""
    rows = []
    with paired.Worker(paired.Peer("ours", our_gru), 2) as a:
        for adam in ("default", "fused"):
            other = paired.Peer(f"PyTorch {adam}", torch_gru, {"adam": adam})
            with paired.Worker(other, 2) as b:
                label = f"GRU step, 784 × 128 units, ours / PyTorch {adam} Adam"
                rows.append(paired.compare(a, b, options.pairs, target=0.7, label=label))
    return rows


PARTS: dict[str, Callable[[Any], list[dict[str, Any]]]] = {
    "rows": compare_rows,
    "rate": compare_rate,
    "gru": compare_gru,
}


def main() -> None:
    """Measure and write."""
    parser = paired.arguments(__doc__, steps=1, pairs=9)
    parser.add_argument("--part", choices=list(PARTS), required=True, help="what to measure")
    options = paired.begin(parser)
    rows = PARTS[options.part](options)
    command = f"python benchmarks/table5.py --part {options.part}"
    paired.write(f"table5_{options.part}", options, rows, command=command)
    if options.part == "rate":
        for row in rows:
            print(f"{row['label']}: {1 / row['ratio']:.0%} of the matrix rate")


if __name__ == "__main__":
    main()
