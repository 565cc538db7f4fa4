import argparse
import sys
import time

from synscale_jax.data import DataNotAvailable, load_images, prepare_images
from synscale_jax.data._archives import SOURCES


def main() -> int:
    """Prepares image sets and prints where they lie and what they hash to."""
    parser = argparse.ArgumentParser(
        prog="python -m synscale_jax.data",
        description="Download and prepare image sets in the layout of TFDS, without TensorFlow.",
    )
    parser.add_argument(
        "names", nargs="+", choices=list(SOURCES), metavar="name", help=", ".join(SOURCES)
    )
    parser.add_argument("--data-dir", help="default: $TFDS_DATA_DIR or ~/tensorflow_datasets")
    arguments = parser.parse_args()
    for name in arguments.names:
        start = time.perf_counter()
        try:
            folder = prepare_images(name, data_dir=arguments.data_dir)
            images = load_images(name, data_dir=arguments.data_dir)
        except DataNotAvailable as error:
            print(error, file=sys.stderr)
            return 1
        seconds = time.perf_counter() - start
        print(
            f"{name}: {folder} ({len(images.train.labels)} + {len(images.test.labels)} images, "
            f"{seconds:.0f} s)\n  data hash {images.data_hash}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
