"""MLP on MNIST: baseline, SynScaW and SynScaL, by the paper's protocol or the PyTorch port's.

The paper (Hofmann and Mäder, IEEE TNNLS 33(7), 2022, table I): 784-1024-1024-10, 200 epochs, error
1.21 % (baseline), 1.14 % (SynScaW), 1.12 % (SynScaL), one run each. The port: 784-1024-10, 24
epochs, best accuracy 98.35, 98.40 and 98.53 %, chosen on the test set.

    python experiments/mnist_mlp.py                   # laptop: the paper's network, 12 epochs
    python experiments/mnist_mlp.py --preset paper    # 200 epochs
    python experiments/mnist_mlp.py --preset port     # readings, width and schedule of the port

Give the same command again to go on after an interruption.
"""

from synscale_jax.training.command_line import run_experiment
from synscale_jax.training.mlp_protocols import MLPConfig, compare_mlp, mlp_presets

PAPER = {"baseline": 1.21, "synscaw": 1.14, "synscal": 1.12}
PORT = {"baseline": 1.65, "synscaw": 1.60, "synscal": 1.47}


def main(config: MLPConfig) -> None:
    """Train, print the table, write the figure."""
    compare_mlp(config, "mnist", PAPER, PORT)


if __name__ == "__main__":
    run_experiment(main, MLPConfig, mlp_presets())
