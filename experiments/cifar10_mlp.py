"""MLP on CIFAR-10: baseline, SynScaW and SynScaL, by the paper's protocol or the PyTorch port's.

The paper (Hofmann and Mäder, IEEE TNNLS 33(7), 2022, table I): 3072-1024-1024-10, 200 epochs,
error 41.47 % (baseline), 41.15 % (SynScaW), 40.80 % (SynScaL), one run each. The port:
3072-1024-10, 24 epochs, best accuracy 52.51, 52.74 and 52.86 %, chosen on the test set.

    python experiments/cifar10_mlp.py                   # laptop: the paper's network, 12 epochs
    python experiments/cifar10_mlp.py --preset paper    # 200 epochs
    python experiments/cifar10_mlp.py --preset port     # readings, width and schedule of the port

Give the same command again to go on after an interruption.
"""

from synscale_jax.training.command_line import run_experiment
from synscale_jax.training.mlp_protocols import MLPConfig, compare_mlp, mlp_presets

PAPER = {"baseline": 41.47, "synscaw": 41.15, "synscal": 40.80}
PORT = {"baseline": 47.49, "synscaw": 47.26, "synscal": 47.14}


def main(config: MLPConfig) -> None:
    """Train, print the table, write the figure."""
    compare_mlp(config, "cifar10", PAPER, PORT)


if __name__ == "__main__":
    run_experiment(main, MLPConfig, mlp_presets())
