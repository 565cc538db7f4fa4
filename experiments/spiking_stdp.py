"""STDP on two neurons: how a weight changes with the time between two spikes.

One input, one neuron, no other synapse at work. The neuron is made to spike a given time before or
after the input by a strong pulse that arrives through a second input whose weights do not learn
from the pair: the change of the first weight is the pair rule, and falls on its closed form.

    python experiments/spiking_stdp.py      # seconds; writes pair.png to results/spiking
"""

from __future__ import annotations

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from synscale_jax.report import spiking as report
from synscale_jax.spiking import (
    LIF,
    STDP,
    LearningRates,
    Network,
    encoding,
    initial_state,
    run,
    stdp,
)
from synscale_jax.training.command_line import run_experiment

INTERVALS = (-80, -60, -40, -30, -20, -15, -10, -5, -2, 2, 5, 10, 15, 20, 30, 40, 60, 80)  # ms
PULSE = 40  # spikes of the driving inputs, in one step


@dataclasses.dataclass(frozen=True)
class Config:
    """Measure the weight change of single pairs of spikes, and draw it."""

    preset: str = "laptop"
    """There is only one."""
    output: pathlib.Path = pathlib.Path(__file__).parent.parent / "results" / "spiking"
    """Folder of the figure."""


def pair(rule: str, interval: float) -> tuple[float, float]:
    """Δt as it came out, ms, and the change of the weight in units of the potentiation."""
    # No inhibition, a short membrane: the pulse fires the neuron within some steps, and only once.
    neuron = LIF(membrane_time=1.0, refractory=1000.0)
    network = Network(
        inputs=1 + PULSE, classes=1, neurons_per_class=1, excitatory=neuron, inhibition=0.0
    )
    weights = np.full((1 + PULSE, 1), network.rule.g_max)
    weights[0] = network.rule.g_max / 2
    state = initial_state(network, jax.random.key(0), weights=weights)
    middle, shift = 2000, round(interval / network.dt)
    raster = np.zeros((4000, 1 + PULSE), bool)
    raster[middle, 0] = True
    raster[middle + shift, 1:] = True
    rates = LearningRates(*(jnp.full(1, float(rate)) for rate in stdp.rates_of(rule)))
    spikes = encoding.spikes_from_raster(raster)
    after, counts = run(network, state, spikes, len(raster), rates)
    if int(counts[0]) != 1:
        raise RuntimeError(f"the neuron spiked {int(counts[0])} times, not once: {interval} ms")
    waited = 1000.0 / network.dt - float(after.neurons.refractory[0])  # steps since its spike
    spiked = len(raster) - 1 - round(waited)
    change = float(after.weights[0, 0] - weights[0, 0]) / network.rule.potentiation
    return (spiked - middle) * network.dt, change


def main(config: Config) -> None:
    """Measure and draw."""
    interval = np.linspace(-100, 100, 2001)
    unit = STDP().potentiation
    closed = {rule: stdp.kernel(STDP(), interval, rule) / unit for rule in ("stdp", "all_ltd")}
    measured = {}
    for rule in closed:
        pairs = np.array([pair(rule, t) for t in INTERVALS])
        measured[rule] = (pairs[:, 0], pairs[:, 1])
        expected = stdp.kernel(STDP(), pairs[:, 0], rule) / unit
        print(
            f"{rule}: largest distance from the closed form {abs(pairs[:, 1] - expected).max():.1e}"
        )
    report.pair_kernels(interval, closed, measured, config.output / "pair.png")


if __name__ == "__main__":
    run_experiment(main, Config, {"laptop": Config(), "paper": Config(preset="paper")})
