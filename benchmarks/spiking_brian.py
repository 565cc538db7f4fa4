"""The spiking network in Brian 2: for recorded arrays, and as the peer of benchmarks/spiking.py.

Brian 2.9, the last for Python 3.11, needs NumPy below 2 and so an environment of its own:

    python3.11 -m venv brian && brian/bin/pip install 'brian2==2.9.0' 'numpy<2' setuptools
    brian/bin/python benchmarks/spiking_brian.py record tests/spiking/brian.npz

``record`` writes the arrays that the tests compare with: a small network on given input spikes,
with simultaneous spikes of inputs and neurons, refractory boundaries, no delay and the longest.
``measure`` is called by benchmarks/spiking.py.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from typing import Any

import brian2 as b2  # pyright: ignore[reportMissingImports]
import numpy as np
from brian2 import Hz, ms, mV  # pyright: ignore[reportMissingImports]

EXCITATORY = """
dv/dt = (ge * (0*mV - v) + gi * (-100*mV - v) + (-60*mV - v)) / (100*ms) : volt
dvt/dt = (-52*mV - vt) / (150*ms) : volt
dge/dt = -ge / (5*ms) : 1
dgi/dt = -gi / (10*ms) : 1
limit : volt
at_input : 1
at_output : 1
"""
INHIBITORY = """
dv/dt = (ge * (0*mV - v) + (-60*mV - v)) / (10*ms) : volt
dge/dt = -ge / (5*ms) : 1
"""
PLASTIC = """
w : 1
last : second
dpre/dt = -pre / (20*ms) : 1 (event-driven)
dpost/dt = -post / (20*ms) : 1 (event-driven)
"""
AT_INPUT = """
{decay}
ge_post += w
pre += 5e-4
w = clip(w + at_input_post * post, 0, 0.05)
last = t
"""
DECAY = "w *= exp(-((t - last) / decay_time)**2)"
AT_OUTPUT = """
post += -5.25e-4
w = clip(w + at_output_post * pre, 0, 0.05)
"""


def build(
    source: Any,
    weights: np.ndarray,
    partner_delay: np.ndarray,
    inhibition_delay: np.ndarray,
    decay_time: float | None = None,
    classes: Any = None,
) -> tuple[b2.Network, dict[str, Any]]:
    """Neurons, synapses and monitors around a group of inputs; delays in ms.

    ``classes`` is a timed array of the image's class, −1: nobody learns. With it one long run shows
    all images: every call of ``run`` costs Brian some tenths of a second.
    """
    n = weights.shape[1]
    excitatory = b2.NeuronGroup(
        n,
        EXCITATORY,
        threshold="v > limit",
        reset="v = -65*mV; vt += 3*mV",
        refractory=5 * ms,
        method="euler",
        name="excitatory",
    )
    if classes is not None:
        own = f"int(i / {n // 3}) == slot(t)"
        excitatory.run_regularly(
            "limit = vt * int(slot(t) >= 0) - 52*mV * int(slot(t) < 0)\n"
            "at_input = int(slot(t) >= 0)\n"
            f"at_output = (2 * int({own}) - 1) * int(slot(t) >= 0)",
            dt=500 * ms,
        )
        excitatory.namespace["slot"] = classes
    excitatory.v, excitatory.vt, excitatory.limit = -80 * mV, -52 * mV, -52 * mV
    inhibitory = b2.NeuronGroup(
        n,
        INHIBITORY,
        threshold="v > -40*mV",
        reset="v = -45*mV",
        refractory=2 * ms,
        method="euler",
        name="inhibitory",
    )
    inhibitory.v = -80 * mV
    decay = DECAY if decay_time else ""
    plastic = b2.Synapses(
        source,
        excitatory,
        PLASTIC,
        on_pre=AT_INPUT.format(decay=decay),
        on_post=AT_OUTPUT,
        namespace={"decay_time": (decay_time or 1) * ms},
        name="plastic",
    )
    plastic.connect()
    plastic.w = weights.ravel()
    plastic.last = -b2.defaultclock.dt
    partner = b2.Synapses(excitatory, inhibitory, on_pre="ge_post += 3", name="partner")
    partner.connect(j="i")
    partner.delay = partner_delay * ms
    lateral = b2.Synapses(inhibitory, excitatory, on_pre=f"gi_post += {3 / n!r}", name="lateral")
    i, j = np.nonzero(~np.eye(n, dtype=bool))
    lateral.connect(i=i, j=j)
    lateral.delay = inhibition_delay[i, j] * ms
    groups = {
        "source": source,
        "excitatory": excitatory,
        "inhibitory": inhibitory,
        "plastic": plastic,
        "partner": partner,
        "lateral": lateral,
        "fired": b2.SpikeMonitor(excitatory),
        "fired_inhibitory": b2.SpikeMonitor(inhibitory),
    }
    return b2.Network(*groups.values()), groups


def supervise(excitatory: Any, slot: int, classes: int) -> None:
    """STDP for the neurons of the class, all-LTD for the others; the threshold of this image."""
    n = len(excitatory)
    excitatory.limit = excitatory.vt[:]
    excitatory.at_input = 1
    excitatory.at_output = np.where(np.arange(n) // (n // classes) == slot, 1, -1)


def record(path: str) -> None:
    """Write the arrays of the small network, without and with decay."""
    b2.prefs.codegen.target = "numpy"
    b2.defaultclock.dt = 0.1 * ms
    rng = np.random.default_rng(0)
    inputs, n, steps = 60, 4, 6000
    raster = rng.random((2 * steps, inputs)) < 0.006
    raster[4000:5500] = False
    raster[11000:11040] |= rng.random((40, inputs)) < 0.6  # drives neurons to the refractory limit
    raster[:, 59] = False
    raster[[3, 11990], 59] = True  # an input that is silent for long
    weights = rng.uniform(0, 0.05, (inputs, n))
    partner = np.array([0, 100, 37, 1])
    lateral = rng.integers(0, 51, (n, n))
    lateral[0, 1], lateral[0, 2] = 0, 50
    arrays = {"raster": np.packbits(raster, axis=0), "weights": weights}
    arrays |= {"partner_delay": partner, "inhibition_delay": lateral, "decay_time": 500.0}
    for name, decay_time in (("none", None), ("continuous", 500.0)):
        step, who = np.nonzero(raster)
        source = b2.SpikeGeneratorGroup(inputs, who, step * 0.1 * ms)
        net, groups = build(source, weights, partner * 0.1, lateral * 0.1, decay_time)
        for slot in (0, 1):
            supervise(groups["excitatory"], slot, 2)
            net.run(steps * 0.1 * ms, namespace={})
            arrays[f"{name}_weights_{slot}"] = np.array(groups["plastic"].w).reshape(inputs, n)
            arrays[f"{name}_potential_{slot}"] = np.concatenate(
                [np.asarray(groups[g].v / mV) for g in ("excitatory", "inhibitory")]
            )
        for group, label in (("fired", "excitatory"), ("fired_inhibitory", "inhibitory")):
            monitor = groups[group]
            arrays[f"{name}_{label}_step"] = np.rint(np.asarray(monitor.t / (0.1 * ms))).astype(int)
            arrays[f"{name}_{label}_neuron"] = np.asarray(monitor.i)
    np.savez_compressed(path, **arrays)
    check(arrays, raster)


def check(arrays: dict[str, Any], raster: np.ndarray) -> None:
    """That the recording holds the cases it is for."""
    step, who = arrays["none_excitatory_step"], arrays["none_excitatory_neuron"]
    gaps = np.concatenate([np.diff(step[who == j]) for j in range(4)])
    print(f"spikes {len(step)} + {len(arrays['none_inhibitory_step'])}, shortest gap {gaps.min()},")
    print(f"with an input spike in the same step {raster[step].any(1).sum()}")
    assert gaps.min() == 50 and raster[step].any(1).sum() >= 8


def measure(target: str, path: str, evaluate: bool) -> dict[str, Any]:
    """Show the images of an npz file in one run, and time it.

    Args:
      target: ``"numpy"``, ``"cython"`` or ``"cpp_standalone"``.
      path: rates (images, inputs) in Hz, slots, weights, delays in ms.
      evaluate: whether weights are frozen.

    Returns:
      Seconds of compilation and of all images but the first, how many those are, how many
      were shown in all, and the spikes of all.
    """
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    standalone = target == "cpp_standalone"
    if standalone:
        b2.set_device("cpp_standalone", build_on_run=False)
    else:
        b2.prefs.codegen.target = target
    b2.defaultclock.dt = 0.1 * ms
    rates, slots = arrays["rates"], arrays["slots"]
    shown = np.zeros((len(rates), 10, rates.shape[1]))
    shown[:, :7] = rates[:, None]  # 350 of 500 ms
    stimulus = b2.TimedArray(shown.reshape(-1, rates.shape[1]) * Hz, dt=50 * ms)
    slot = b2.TimedArray(np.full(len(slots), -1) if evaluate else slots, dt=500 * ms)
    source = b2.PoissonGroup(rates.shape[1], "stimulus(t, i)", namespace={"stimulus": stimulus})
    net, groups = build(
        source,
        arrays["weights"],
        arrays["partner_delay"],
        arrays["inhibition_delay"],
        classes=slot,
    )
    begin = time.perf_counter()
    if standalone:
        directory = tempfile.mkdtemp()
        net.run(len(rates) * 500 * ms, namespace={})
        b2.device.build(directory=directory, run=False)
        compiled, images = time.perf_counter() - begin, len(rates)
        begin = time.perf_counter()
        b2.device.run(directory, with_output=False, run_args=[])
    else:
        net.run(500 * ms, namespace={})
        compiled, images = time.perf_counter() - begin, len(rates) - 1
        begin = time.perf_counter()
        net.run((len(rates) - 1) * 500 * ms, namespace={})
    return {
        "compile_seconds": compiled,
        "seconds": time.perf_counter() - begin,
        "images": images,
        "shown": len(rates),
        "spikes": int(groups["fired"].num_spikes),
        "versions": {"brian2": b2.__version__, "numpy": np.__version__},
    }


if __name__ == "__main__":
    if sys.argv[1] == "record":
        record(sys.argv[2])
    else:
        print(json.dumps(measure(sys.argv[2], sys.argv[3], sys.argv[4] == "evaluate")))
