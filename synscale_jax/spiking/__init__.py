"""A spiking network that learns by STDP, with weights that it uses or loses."""

from synscale_jax.spiking import encoding, neurons, protocol, stdp
from synscale_jax.spiking.batched import count_spikes_batched
from synscale_jax.spiking.encoding import InputSpikes
from synscale_jax.spiking.network import Network, NetworkState, initial_state, learning_rates, step
from synscale_jax.spiking.neurons import LIF, LIFState
from synscale_jax.spiking.pretrained import Pretrained, load_pretrained
from synscale_jax.spiking.stdp import STDP, LearningRates, silence_factor
from synscale_jax.spiking.training import count_spikes, engine, flush, run, train

__all__ = [
    "LIF",
    "STDP",
    "InputSpikes",
    "LIFState",
    "LearningRates",
    "Network",
    "NetworkState",
    "Pretrained",
    "count_spikes",
    "count_spikes_batched",
    "encoding",
    "engine",
    "flush",
    "initial_state",
    "learning_rates",
    "load_pretrained",
    "neurons",
    "protocol",
    "run",
    "silence_factor",
    "stdp",
    "step",
    "train",
]
