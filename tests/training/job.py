"""A small training run: imported by the tests, and run by them as a process that meets harm.

As a program: ``python job.py FOLDER HARM`` trains in FOLDER and does HARM to itself on the way.
"""

import functools
import os
import pathlib
import signal
import sys

from synscale_jax.data import load_images
from synscale_jax.models import MLP
from synscale_jax.training import methods
from synscale_jax.training.config import TrainConfig
from synscale_jax.training.loop import train
from synscale_jax.training.program import Program

EPOCHS = 3  # of 12 steps, in chunks of 5, 5 and 2


@functools.cache
def digits():
    return load_images("digits")


def make_program(method=None, model=None, **settings):
    settings = {"epochs": EPOCHS, "validation_examples": 200, "chunk_steps": 5, **settings}
    # SynScaW has counters and gaps in its state, and every third step acts.
    method = method or methods.synscaw(0.01, every_k=3)
    return Program(model or MLP((16,), 10), method, TrainConfig(**settings), digits())


def before_chunk(program, number, act):
    """Call ``act`` when chunk ``number`` (from 1) has been handed to XLA."""
    chunk, calls = program.chunk, []

    def counted(state, key, steps):
        result = chunk(state, key, steps)
        calls.append(steps)
        if len(calls) == number:
            act()
        return result

    program.chunk = counted
    return calls


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def harm_in_chunk(program):
    before_chunk(program, 8, kill)


def harm_in_save(program):
    """Die when the second checkpoint is written, but not yet renamed."""

    def hooked(rename):
        def checked(source, target, *args, **kwargs):
            if str(target).endswith("/checkpoints/24"):
                kill()
            return rename(source, target, *args, **kwargs)

        return checked

    os.rename, os.replace = hooked(os.rename), hooked(os.replace)


def harm_by_sigterm(program):
    before_chunk(program, 5, lambda: os.kill(os.getpid(), signal.SIGTERM))


def harm_by_waiting(program):
    """Say so when a chunk that takes minutes has begun."""
    before_chunk(program, 1, lambda: print("begun", flush=True))


def main(folder, harm):
    settings = {"epochs": 1, "batch": 1, "chunk_steps": 1237} if harm == "by_waiting" else {}
    model = MLP((3000, 3000, 3000), 10) if harm == "by_waiting" else None
    program = make_program(model=model, **settings)
    globals()[f"harm_{harm}"](program)
    train(program, 0, pathlib.Path(folder), show_progress=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
