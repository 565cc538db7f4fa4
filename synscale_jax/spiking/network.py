"""The network: inputs, excitatory and inhibitory neurons, delayed synapses, lateral inhibition."""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from synscale_jax.spiking import neurons, stdp
from synscale_jax.spiking.neurons import LIF, LIFState
from synscale_jax.spiking.stdp import STDP, LearningRates

ONE_SHOT_TIME, CONTINUOUS_TIME = 7_500.0, 150_000.0  # ms


@dataclasses.dataclass(frozen=True)
class Network:
    """What a network is, apart from its state. The defaults are the published ones.

    Attributes:
      inputs: how many inputs, one a pixel.
      classes: how many classes; class c owns the neurons c · neurons_per_class and following.
      neurons_per_class: excitatory neurons of a class. Each has an inhibitory partner.
      dt: length of a step, ms.
      active: how long an image is shown, ms.
      rest: how long the inputs are silent after it, ms.
      threshold: ``"snapshot"`` holds the adaptive threshold of an image's beginning through that
        image, as the original ran; ``"continuous"`` compares with the adaptive threshold itself;
        ``"fixed"`` does not adapt.
      others: the rule of the neurons that the image's class does not own: ``"all_ltd"``, or
        ``"frozen"`` for STDP alone.
      others_rate: factor of that rule. A neuron is the owner of one image in ``classes``; with many
        classes all-LTD at full rate silences it. (classes − 1) · others_rate = 2 keeps the balance
        of the published three.
      decay: use it or lose it: ``"none"``; ``"one_shot"``, which weighs weights once, in
        :func:`flush` after training, as the original ran; ``"continuous"``, at every input spike,
        as its equation says.
      decay_time: τ of the decay, ms; left out, 7.5 s for ``"one_shot"`` and 150 s for
        ``"continuous"``, which at 7.5 s loses more than STDP restores.
      excitatory: parameters of the excitatory neurons, one number for all of them.
      inhibitory: parameters of the inhibitory neurons, likewise.
      rule: parameters of STDP.
      partner_weight: from an excitatory neuron to its inhibitory partner.
      inhibition: from one inhibitory neuron to all others' excitatory ones together.
      partner_delay: longest delay to the partner, ms; drawn once for each synapse.
      inhibition_delay: longest delay of lateral inhibition, ms.

    Raises:
      ValueError: for settings that are no network.
    """

    inputs: int = 784
    classes: int = 3
    neurons_per_class: int = 10
    dt: float = 0.1
    active: float = 350.0
    rest: float = 150.0
    threshold: Literal["snapshot", "continuous", "fixed"] = "snapshot"
    others: Literal["all_ltd", "frozen"] = "all_ltd"
    others_rate: float = 1.0
    decay: Literal["none", "one_shot", "continuous"] = "none"
    decay_time: float | None = None
    excitatory: LIF = neurons.EXCITATORY
    inhibitory: LIF = neurons.INHIBITORY
    rule: STDP = stdp.PUBLISHED
    partner_weight: float = 3.0
    inhibition: float = 3.0
    partner_delay: float = 10.0
    inhibition_delay: float = 5.0

    def __post_init__(self) -> None:
        for name in ("excitatory", "inhibitory"):
            neuron: LIF = getattr(self, name)
            for field, value in neuron._asdict().items():
                if np.ndim(value):
                    raise ValueError(
                        f"{name}.{field} has shape {np.shape(value)}: a network takes one number "
                        "for all neurons of a population."
                    )
            neurons.check_step(neuron, self.dt)
        stdp.check_rule(self.rule)
        if self.dt > min(self.rule.presynaptic_time, self.rule.postsynaptic_time):
            raise ValueError(f"dt={self.dt} ms is longer than STDP's traces: use a shorter one.")
        for name in ("inputs", "classes", "neurons_per_class"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: a network needs 1 or more.")
        choices = {
            "threshold": ("snapshot", "continuous", "fixed"),
            "others": ("all_ltd", "frozen"),
            "decay": ("none", "one_shot", "continuous"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} is unknown: use one of {', '.join(allowed)}."
                )
        if not 0 <= self.others_rate < float("inf"):
            raise ValueError(f"others_rate={self.others_rate}: use 0 or more (1 as published).")
        if self.decay_time is not None and self.decay_time <= 0:
            raise ValueError(f"decay_time={self.decay_time} ms: use a positive time.")

    @property
    def neurons(self) -> int:
        """Excitatory neurons; there are as many inhibitory ones."""
        return self.classes * self.neurons_per_class

    @property
    def active_steps(self) -> int:
        """Steps an image is shown."""
        return round(self.active / self.dt)

    @property
    def steps(self) -> int:
        """Steps of a presentation, rest included."""
        return round((self.active + self.rest) / self.dt)

    @property
    def silence_time(self) -> float:
        """τ of the decay in ms, whatever the mode."""
        if self.decay_time is not None:
            return self.decay_time
        return CONTINUOUS_TIME if self.decay == "continuous" else ONE_SHOT_TIME

    @property
    def population(self) -> LIF:
        """Parameters of the excitatory and then the inhibitory neurons."""
        return neurons.concatenate(self.excitatory, self.neurons, self.inhibitory, self.neurons)

    @property
    def longest_delay(self) -> int:
        """In steps."""
        return int(neurons.steps_in(max(self.partner_delay, self.inhibition_delay), self.dt))


class NetworkState(NamedTuple):
    """State of a network with n excitatory, n inhibitory neurons and m inputs.

    Time is an int32 number of steps, good for 59 hours of simulated time at 0.1 ms; the differences
    of such numbers are exact, those of float32 milliseconds are not.

    Attributes:
      step: shape=(), int32: steps taken.
      neurons: excitatory and then inhibitory ones, fields of shape (2 n,).
      threshold: shape=(2 n,): what potentials are compared with, mV.
      weights: shape=(m, n): from inputs to excitatory neurons, in [0, g_max].
      presynaptic_trace: shape=(m,): right after each input's last spike.
      postsynaptic_trace: shape=(n,): of this moment.
      last_input: shape=(m,), int32: the step of each input's last spike; the step before the first
        where it has had none.
      arrivals: shape=(longest delay + 1, 2 n): conductance under way, by step of arrival modulo
        the length; valid while steps since ``last_spike`` do not exceed the longest delay.
      last_spike: shape=(), int32: step of the last spike of any neuron.
      partner_delay: shape=(n,), int32: steps from neuron j to its partner.
      inhibition_delay: shape=(n, n), int32: steps from partner i to neuron j.
    """

    step: Array
    neurons: LIFState
    threshold: Array
    weights: Array
    presynaptic_trace: Array
    postsynaptic_trace: Array
    last_input: Array
    arrivals: Array
    last_spike: Array
    partner_delay: Array
    inhibition_delay: Array


def check_state(network: Network, state: NetworkState) -> None:
    """Refuse the state of another network, which C++ would read beyond its end.

    Raises:
      ValueError: if weights or thresholds have shapes that the network has not.
    """
    wanted, found = (network.inputs, network.neurons), state.weights.shape
    if found != wanted or state.threshold.shape != (2 * network.neurons,):
        raise ValueError(
            f"a state with weights {found} is of another network than one with weights {wanted}: "
            "make it with initial_state(network, key)."
        )


def initial_state(
    network: Network,
    key: Array,
    *,
    weights: ArrayLike | None = None,
    start: int = 0,
    dtype: DTypeLike = jnp.float32,
) -> NetworkState:
    """A network that has seen nothing.

    Args:
      network: what it is.
      key: for weights, uniform in [0, g_max), and delays, uniform up to their longest.
      weights: (inputs, neurons) in [0, g_max], in place of drawn ones.
      start: the step it is at.
      dtype: float32 or float64.

    Returns:
      The state.

    Raises:
      ValueError: if weights have another shape or leave [0, g_max].

    Examples:
      >>> import jax
      >>> from synscale_jax import spiking
      >>> state = spiking.initial_state(spiking.Network(), jax.random.key(0))
      >>> state.weights.shape, state.arrivals.shape
      ((784, 30), (101, 60))
    """
    n, m = network.neurons, network.inputs
    for_weights, for_partners, for_inhibition = jax.random.split(key, 3)
    if weights is None:
        weights = jax.random.uniform(for_weights, (m, n), dtype, 0, network.rule.g_max)
    weights = check_weights(network, weights, dtype)
    population = neurons.initial_state(network.population, 2 * n, dtype=dtype)
    longest = network.longest_delay
    return NetworkState(
        step=jnp.int32(start),
        neurons=population,
        threshold=population.adaptive_threshold,
        weights=weights,
        presynaptic_trace=jnp.zeros(m, dtype),
        postsynaptic_trace=jnp.zeros(n, dtype),
        last_input=jnp.full(m, start - 1, jnp.int32),
        arrivals=jnp.zeros((longest + 1, 2 * n), dtype),
        last_spike=jnp.int32(start - longest - 1),
        partner_delay=_delays(for_partners, (n,), network.partner_delay, network.dt),
        inhibition_delay=_delays(for_inhibition, (n, n), network.inhibition_delay, network.dt),
    )


def _delays(key: Array, shape: tuple[int, ...], longest: float, dt: float) -> Array:
    drawn = jax.random.uniform(key, shape, jnp.float32, 0, longest / dt)
    return jnp.floor(drawn + 0.5).astype(jnp.int32)


def check_weights(network: Network, weights: ArrayLike, dtype: DTypeLike | None = None) -> Array:
    """Weights as an array, refused where they do not belong to the network.

    Raises:
      ValueError: if they have another shape or leave [0, g_max].
    """
    array = jnp.asarray(weights, dtype)
    if array.shape != (network.inputs, network.neurons):
        raise ValueError(
            f"weights have shape {array.shape}, the network has {network.inputs} inputs and "
            f"{network.neurons} neurons: give ({network.inputs}, {network.neurons})."
        )
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= float(np.asarray(network.rule.g_max, array.dtype))):
        raise ValueError(
            f"weights reach from {low:.6g} to {high:.6g}: keep them in [0, {network.rule.g_max}]."
        )
    return array


def learning_rates(
    network: Network, slot: ArrayLike, dtype: DTypeLike = jnp.float32
) -> LearningRates:
    """Supervision: STDP for the neurons of the image's class, the other rule for the rest.

    Args:
      network: what it is.
      slot: the class's position among the network's classes, or −1: nobody learns.
      dtype: of the result.

    Returns:
      The factors of every neuron.
    """
    slot = jnp.asarray(slot)
    owner = jnp.arange(network.neurons) // network.neurons_per_class
    own = stdp.rates_of("stdp")
    other = [network.others_rate * rate for rate in stdp.rates_of(network.others)]
    return LearningRates(
        *(
            jnp.where(slot < 0, 0, jnp.where(owner == slot, a, b)).astype(dtype)
            for a, b in zip(own, other, strict=True)
        )
    )


def begin_presentation(network: Network, state: NetworkState) -> NetworkState:
    """Set the threshold of an image's beginning."""
    adaptive = state.neurons.adaptive_threshold
    fixed = jnp.asarray(network.population.threshold, adaptive.dtype)
    return state._replace(threshold=fixed if network.threshold == "fixed" else adaptive)


def step(
    network: Network,
    state: NetworkState,
    inputs: Array,
    rates: LearningRates,
    *,
    decay: bool = False,
) -> tuple[NetworkState, Array]:
    """One step of everything, plainly: what the event-driven path is tested against.

    Order: integrate; look for spikes; input spikes (decay of unused weights, delivery, trace,
    depression); output spikes (trace, potentiation, sending); arrivals; resets.

    Args:
      network: what it is.
      state: before the step.
      inputs: bool (inputs,), which inputs spike.
      rates: from :func:`learning_rates`.
      decay: whether weights lose by their input's silence.

    Returns:
      The state after it, and who spiked, bool (2 n,), excitatory neurons first.
    """
    n, dt, rule = network.neurons, network.dt, network.rule
    cells = neurons.integrate(network.population, state.neurons, dt)
    continuous = network.threshold == "continuous"
    spiked = neurons.spikes(cells, cells.adaptive_threshold if continuous else state.threshold)
    post = state.postsynaptic_trace * np.exp(-dt / rule.postsynaptic_time)

    silent = state.step - state.last_input
    weights, heard = state.weights, inputs[:, None]
    if decay:
        factor = stdp.silence_factor(silent, dt, network.silence_time).astype(weights.dtype)
        weights = jnp.where(heard, weights * factor[:, None], weights)
    delivered = jnp.where(heard, weights, 0).sum(0)
    weights = jnp.where(heard, stdp.at_input_spike(rule, weights, post, rates), weights)
    pre = state.presynaptic_trace * stdp.trace_decay(silent, dt, rule.presynaptic_time, weights)
    pre_now = pre + jnp.where(inputs, jnp.asarray(rule.potentiation, pre.dtype), 0)
    post = post + jnp.where(spiked[:n], rule.depression, 0).astype(post.dtype)
    weights = stdp.at_output_spike(rule, weights, pre_now, rates, spiked[:n])

    under_way = send(network, state, state.step, spiked)
    slot = state.step % len(under_way)
    arriving = under_way[slot]
    cells = cells._replace(
        excitatory=cells.excitatory + jnp.concatenate([delivered, arriving[n:]]),
        inhibitory=cells.inhibitory + jnp.concatenate([arriving[:n], jnp.zeros_like(delivered)]),
    )
    return state._replace(
        step=state.step + 1,
        neurons=neurons.reset(network.population, cells, spiked, dt),
        weights=weights,
        presynaptic_trace=jnp.where(inputs, pre_now, state.presynaptic_trace),
        postsynaptic_trace=post,
        last_input=jnp.where(inputs, state.step, state.last_input),
        arrivals=under_way.at[slot].set(0),
        last_spike=jnp.where(spiked.any(), state.step, state.last_spike),
    ), spiked


def send(network: Network, state: NetworkState, now: Array, spiked: Array) -> Array:
    """The conductance under way after spikes of step ``now``, what is stale cleared.

    A spike goes from excitatory neuron j to its partner, from partner i to all neurons but i.
    """
    n, length = network.neurons, len(state.arrivals)
    ahead = (jnp.arange(length) - now) % length
    valid = ahead <= state.last_spike + length - 1 - now
    under_way = jnp.where(valid[:, None], state.arrivals, 0)
    own = jnp.arange(n)
    to_partner = jnp.where(spiked[:n], network.partner_weight, 0).astype(under_way.dtype)
    others = jnp.where(
        spiked[n:, None] & ~jnp.eye(n, dtype=bool), network.inhibition / n, 0
    ).astype(under_way.dtype)
    under_way = under_way.at[(now + state.partner_delay) % length, n + own].add(to_partner)
    return under_way.at[(now + state.inhibition_delay) % length, own[None]].add(others)
