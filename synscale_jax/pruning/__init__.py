"""Noise-prune: probe a recurrent network with noise and keep the synapses that matter."""

from synscale_jax.pruning._clustered import clustered_network
from synscale_jax.pruning._dynamics import (
    NoiseTraces,
    initial_traces,
    probe_with_noise,
    simulate,
    update_traces,
)
from synscale_jax.pruning._metrics import (
    SpectrumErrors,
    dynamics_error,
    propagator_error,
    spectrum_errors,
)
from synscale_jax.pruning._noise_prune import (
    RECURRENT_KERNELS,
    KernelReport,
    NoisePruned,
    NoisePruningState,
    keep_pruned,
    noise_prune,
    noise_pruning,
)
from synscale_jax.pruning._probability import (
    difference_variance,
    guaranteed_probability,
    keep_probability,
    uniform_probability,
    weight_probability,
)
from synscale_jax.pruning._sampling import PrunedNetwork, prune_network, sample_synapses
from synscale_jax.pruning.linear_network import (
    largest_real_eigenvalue,
    solve_lyapunov,
    stationary_covariance,
)

__all__ = [
    "RECURRENT_KERNELS",
    "KernelReport",
    "NoisePruned",
    "NoisePruningState",
    "NoiseTraces",
    "PrunedNetwork",
    "SpectrumErrors",
    "clustered_network",
    "difference_variance",
    "dynamics_error",
    "guaranteed_probability",
    "initial_traces",
    "keep_probability",
    "keep_pruned",
    "largest_real_eigenvalue",
    "noise_prune",
    "noise_pruning",
    "probe_with_noise",
    "propagator_error",
    "prune_network",
    "sample_synapses",
    "simulate",
    "solve_lyapunov",
    "spectrum_errors",
    "stationary_covariance",
    "uniform_probability",
    "update_traces",
    "weight_probability",
]
