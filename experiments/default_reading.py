"""Which reading of SynScaW is the default? The first that is stable, harmless and not idle.

The paper's rule (14) leaves open what the target is, when and where it is measured and what limits
it, and most of what the text allows diverges. The candidates below stand in order of closeness to
the text. Each trains the paper's MNIST network (784-1024-1024-10, Adam 5e-4 times 0.94 every 5
epochs, batch 100, 200 epochs; 10 000 training images are held out to judge by) at the scaling
rates 0.01 (tables) and 0.1 (the end of figure 6b), under the same seeds and batches as a baseline.
The default is the first candidate that at both rates, under every seed,
  - keeps every weight below 10 (a run that does not is stopped after that epoch: "diverges"),
  - ends no worse than the baseline, beyond the 95 % paired interval on the held-out images,
  - still changes weights: a mean relative change above 1e-6 a step.
One seed's interval is over images; that of all seeds is a bootstrap over seeds and images.

    python experiments/default_reading.py                     # everything that is missing
    python experiments/default_reading.py --candidates norm_restored --rates 0.1 --seeds 3
    python experiments/default_reading.py --table             # only draw the table

Outcome: what the text says diverges within 7 epochs at 0.01 and within one at 0.1, with the output
layer or without. Restoring each neuron's norm is worse than the baseline with seeds 1 and 2 at
0.01. Once an epoch a weight grows beyond 10 in epoch 146. Restoring norms and leaving the output
layer out is the first that passes and the default, though at 0.01 all three seeds lean to the worse
side.

A run that lives 200 epochs takes about 15 minutes of one core, one that diverges less; finished
runs are kept in results/default_reading/ and not run again.
"""

import base64
import dataclasses
import itertools
import json
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

import synscale_jax as ss
from synscale_jax.analysis.intervals import difference_interval
from synscale_jax.data import DataNotAvailable, load_images, split_validation
from synscale_jax.training.provenance import provenance, write_json

EPOCHS, BATCH = 200, 100
WIDTHS = (784, 1024, 1024, 10)
LAYERS = tuple(ss.Layer((name,), output=name == "head") for name in ("dense0", "dense1", "head"))
LARGEST_WEIGHT, LEAST_CHANGE = 10.0, 1e-6
RESULTS = pathlib.Path(__file__).parent.parent / "results" / "default_reading"

ORIGIN = """The runs with seed 0 were started from uncommitted states around ffc20a7 (the one at
0.1: around e11009c) and wrote down the commit of the moment they ended, since mended. Their images
came through a stand-in for `load_images` whose arrays were compared with it afterwards and were
equal; `data_hash` and `restore_norm`, then no default, were filled in by hand. SynScaW's arithmetic
has been reordered for speed since: a rerun agrees to rounding, which 200 epochs amplify."""

# The readings in order of closeness to the text, by what they change of it; γ, the layers and
# `every_k` are set per run.
CANDIDATES: dict[str, dict[str, Any]] = {
    "text": {},
    "text_sampled": {"target": "layer_noise_sampled"},
    "output_left_out": {"scale_output": False},
    "norm_restored": {"restore_norm": True},
    "every_epoch": {"every_k": "epoch"},
    "change_bounded": {"max_relative_change": 0.01},
    "output_left_out_norm_restored": {"scale_output": False, "restore_norm": True},
    "output_left_out_change_bounded": {"scale_output": False, "max_relative_change": 0.01},
    "norm_restored_change_bounded": {"restore_norm": True, "max_relative_change": 0.01},
    "every_epoch_change_bounded": {"every_k": "epoch", "max_relative_change": 0.01},
    "notebook": {
        "target": 0.1,
        "measured_on": "noise",
        "granularity": "layer",
        "clip": 1.0,
        "every_k": "epoch",
    },
}


Runs = Sequence[dict[str, Any]]


class Carry(NamedTuple):
    """What one training step hands to the next."""

    params: Any
    adam: optax.OptState
    scaling: Any


class Epoch(NamedTuple):
    """What is recorded after every epoch."""

    train_loss: float | None  # None: not a finite number
    validation_error: float  # percent
    test_error: float  # percent
    largest_weight: float | None
    mean_gap: dict[str, float | None]  # layer -> mean |ẑ| at the last scaling
    relative_change: float | None  # mean over steps of ‖scaling step‖ / ‖weights‖


def number(value: jax.Array | float) -> float | None:
    """A finite value with six digits, or None."""
    return float(f"{float(value):.6g}") if np.isfinite(value) else None


def initial_params(key: jax.Array) -> dict:
    """LeCun-normal kernels and zero biases."""
    keys = jax.random.split(key, len(LAYERS))
    initializer = jax.nn.initializers.lecun_normal()
    return {
        layer.name: {"kernel": initializer(k, shape), "bias": jnp.zeros(shape[1])}
        for layer, k, shape in zip(LAYERS, keys, itertools.pairwise(WIDTHS), strict=True)
    }


def forward(params: dict, images: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Logits (batch, 10), and the mean activity of every neuron, keyed by layer."""
    hidden, activity = images.reshape(len(images), -1) / 255.0, {}
    drive = hidden
    for layer in LAYERS:
        drive = hidden @ params[layer.name]["kernel"] + params[layer.name]["bias"]
        hidden = jax.nn.relu(drive)
        activity[layer.name] = jax.lax.stop_gradient(hidden.mean(0))
    return drive, activity


def make_epoch(
    adam: optax.GradientTransformation,
    scaling: optax.GradientTransformationExtraArgs,
    images: jax.Array,
    labels: jax.Array,
) -> Callable[[Carry, jax.Array], tuple[Carry, jax.Array, jax.Array]]:
    """Compile one epoch: a permutation of the data, one step a batch."""

    def loss(params: dict, batch: jax.Array) -> tuple[jax.Array, dict]:
        logits, activity = forward(params, images[batch])
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels[batch])
        return entropy.mean(), activity

    def step(carry: Carry, batch: jax.Array) -> tuple[Carry, tuple[jax.Array, jax.Array]]:
        params = carry.params
        (value, activity), grads = jax.value_and_grad(loss, has_aux=True)(params, batch)
        plain, adam_state = adam.update(grads, carry.adam, params)
        updates, state = scaling.update(plain, carry.scaling, params, activity=activity)
        change = optax.tree.norm(optax.tree.sub(updates, plain)) / optax.tree.norm(params)
        return Carry(optax.apply_updates(params, updates), adam_state, state), (value, change)

    def epoch(carry: Carry, key: jax.Array) -> tuple[Carry, jax.Array, jax.Array]:
        order = jax.random.permutation(key, len(images)).reshape(-1, BATCH)
        carry, (losses, changes) = jax.lax.scan(step, carry, order)
        return carry, losses.mean(), changes.mean()

    return jax.jit(epoch, donate_argnums=0)


@jax.jit
def correct(params: dict, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Which images are classified correctly."""
    return forward(params, images)[0].argmax(-1) == labels


def run(name: str, rate: float, seed: int) -> dict:
    """Train one candidate at one rate; stop where it breaks the bound on the weights."""
    origin = provenance()  # before training: the checkout may move on meanwhile
    data = load_images("mnist")
    train, held_out = split_validation(data.train, 10_000)
    steps = len(train.images) // BATCH
    reading = {"scale_output": True, "restore_norm": False, **CANDIDATES.get(name, {})}
    if reading.get("every_k") == "epoch":
        reading["every_k"] = steps
    is_baseline = name == "baseline"
    scaling = ss.synscaw(0.0 if is_baseline else rate, layers=LAYERS, **reading)
    adam = optax.adam(optax.exponential_decay(5e-4, 5 * steps, 0.94, staircase=True))
    params = initial_params(jax.random.key(seed))
    carry = Carry(params, adam.init(params), scaling.init(params))
    run_epoch = make_epoch(adam, scaling, jnp.asarray(train.images), jnp.asarray(train.labels))
    history, verdict, start, hits = [], "lives", time.time(), np.zeros(0, bool)
    for epoch in range(EPOCHS):
        key = jax.random.fold_in(jax.random.key(seed + 1), epoch)
        carry, train_loss, change = run_epoch(carry, key)
        hits = np.asarray(correct(carry.params, held_out.images, held_out.labels))
        right = correct(carry.params, data.test.images, data.test.labels)
        largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(carry.params))
        history.append(
            Epoch(
                number(train_loss),
                100 * float(np.mean(~hits)),
                100 * float(np.mean(~np.asarray(right))),
                number(largest),
                {layer: number(gap) for layer, gap in carry.scaling.mean_gap.items()},
                number(change),
            )._asdict()
        )
        if not largest < LARGEST_WEIGHT:  # also where it is not a number
            verdict = f"diverges in epoch {epoch + 1}"
            break
    return {
        "candidate": name,
        "scaling_rate": rate,
        "reading": reading,
        "verdict": verdict,
        "seed": seed,
        "epochs": len(history),
        "steps_per_epoch": steps,
        "validation_correct": base64.b64encode(np.packbits(hits).tobytes()).decode(),
        "history": history,
        "data_hash": data.data_hash,
        "seconds": round(time.time() - start, 1),
        **origin,
    }


def held_out_hits(result: dict) -> np.ndarray:
    """Which held-out images the last network classified correctly."""
    packed = np.frombuffer(base64.b64decode(result["validation_correct"]), np.uint8)
    return np.unpackbits(packed).astype(bool)


def paired_interval(ours: Runs, baseline: Runs) -> tuple[float, float]:
    """95 % interval of the difference in held-out error, in points, paired by seed and image."""
    ours_hits = np.stack([held_out_hits(result) for result in ours])
    base_hits = np.stack([held_out_hits(result) for result in baseline])
    if len(ours_hits) > 1:
        _, low, high = difference_interval(ours_hits, base_hits)
        return 100 * low, 100 * high
    difference = 100.0 * (base_hits[0].astype(float) - ours_hits[0])
    half_width = 1.96 * difference.std(ddof=1) / np.sqrt(len(difference))
    return difference.mean() - half_width, difference.mean() + half_width


def mean_change(results: Runs) -> float:
    """Mean relative change a step, over the epochs that ended with finite numbers."""
    changes = [epoch["relative_change"] for result in results for epoch in result["history"]]
    return float(np.mean([change for change in changes if change is not None] or [0.0]))


def judge(results: Runs, baseline: Runs) -> str:
    """The rule, applied to the finished runs of one candidate at one rate: all have to pass.

    A few seeds are too few to tell harm from chance by an interval over seeds, so that "passes"
    would come easily: each network is compared on its own.
    """
    for ours, theirs in zip(results, baseline, strict=True):
        if ours["verdict"] != "lives":
            return ours["verdict"]
        if paired_interval([ours], [theirs])[0] > 0:
            return "worse than the baseline"
    return "passes" if mean_change(results) > LEAST_CHANGE else "idle"


def path_of(folder: pathlib.Path, name: str, rate: float, seed: int) -> pathlib.Path:
    """Where the result of a run is kept."""
    of_rate = "" if name == "baseline" else f"_rate{rate:g}"
    return folder / f"{name}{of_rate}_seed{seed}.json"


def finished(folder: pathlib.Path, name: str, rate: float) -> dict[int, dict]:
    """Seed -> result, of the runs that are there."""
    pattern = path_of(folder, name, rate, 0).name.replace("seed0", "seed*")
    results = (json.loads(path.read_text()) for path in folder.glob(pattern))
    return dict(sorted((result["seed"], result) for result in results))


COLUMNS = (
    "candidate",
    "γ",
    "seed",
    "epochs",
    "held-out error %",
    "difference to baseline (95 %)",
    "test error %",
    "max abs(w)",
    "change a step",
    "verdict",
)


def table(folder: pathlib.Path) -> str:
    """Every candidate at every rate, in Markdown; what is not there yet is said to be missing."""
    baseline = finished(folder, "baseline", 0)
    rows = [list(COLUMNS), ["---"] * len(COLUMNS)]
    for name, rate in (("baseline", 0.0), *itertools.product(CANDIDATES, (0.01, 0.1))):
        results = finished(folder, name, rate)
        shared = {seed: result for seed, result in results.items() if seed in baseline}
        if not shared:
            rows.append([name, f"{rate:g}", *[""] * 7, "not run"])
        for group in ([seed] for seed in shared):
            rows.append(row(name, rate, shared, baseline, group))
        if len(shared) > 1:
            rows.append(row(name, rate, shared, baseline, list(shared)))
    return "".join("| " + " | ".join(cells) + " |\n" for cells in rows)


def row(
    name: str,
    rate: float,
    results: dict[int, dict],
    baselines: dict[int, dict],
    seeds: Sequence[int],
) -> list[str]:
    """The cells of one run, or of all of them together."""
    ours, theirs = [results[seed] for seed in seeds], [baselines[seed] for seed in seeds]
    last = [result["history"][-1] for result in ours]
    largest = [epoch["largest_weight"] for result in ours for epoch in result["history"]]
    compared = name != "baseline"
    low, high = paired_interval(ours, theirs)
    lives = all(result["verdict"] == "lives" for result in ours)
    return [
        name,
        f"{rate:g}",
        ", ".join(map(str, seeds)),
        ", ".join(str(epochs) for epochs in sorted({result["epochs"] for result in ours})),
        f"{np.mean([epoch['validation_error'] for epoch in last]):.2f}",
        f"{low:+.2f} to {high:+.2f}" if lives and compared else "",
        f"{np.mean([epoch['test_error'] for epoch in last]):.2f}",
        "not finite" if None in largest else f"{max(largest):.2f}",
        f"{mean_change(ours):.1e}" if mean_change(ours) or not compared else "",
        judge(ours, theirs) if compared else "",
    ]


@dataclasses.dataclass(frozen=True)
class Config:
    """Train the candidates for synscaw's default reading and apply the rule to them."""

    candidates: Sequence[str] = ("baseline", *CANDIDATES)
    """Which candidates to run, in this order."""
    rates: Sequence[float] = (0.01, 0.1)
    """Scaling rates γ."""
    seeds: Sequence[int] = (0, 1, 2)
    """Every candidate is trained with each of these seeds."""
    output: pathlib.Path = RESULTS
    """Folder of results and table."""
    table: bool = False
    """Only draw the table of what is there."""


def main(config: Config) -> None:
    """Run what is missing, then write and print the table."""
    unknown = set(config.candidates) - {"baseline", *CANDIDATES}
    if unknown:
        raise SystemExit(
            f"--candidates {' '.join(sorted(unknown))}: unknown; there are baseline, "
            f"{', '.join(CANDIDATES)}."
        )
    for name, seed in () if config.table else itertools.product(config.candidates, config.seeds):
        for rate in (0.0,) if name == "baseline" else config.rates:
            path = path_of(config.output, name, rate, seed)
            if not path.exists():
                result = run(name, rate, seed)
                write_json(path, result)
                done = f"{result['verdict']}, {result['seconds']} s"
                print(f"{name} γ={rate:g}, seed {seed}: {done}", flush=True)
    if finished(config.output, "baseline", 0):
        summary = (__doc__ or "").split("\n\n")[1]
        title = "# Candidates for the default reading of SynScaW"
        text = f"{title}\n\n{summary}\n\n{table(config.output)}\n{ORIGIN}\n"
        (config.output / "README.md").write_text(text)
        print(table(config.output))


if __name__ == "__main__":
    try:
        main(tyro.cli(Config))
    except DataNotAvailable as error:
        raise SystemExit(f"error: {error}") from None
