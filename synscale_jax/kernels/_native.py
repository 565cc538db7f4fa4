"""Builds the oneDNN shim once, with the system's compiler, and keeps it in the user's cache."""

import ctypes
import hashlib
import importlib.metadata
import importlib.resources
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import jaxlib

_LIBRARY, _HEADERS = "onednn-cpu-gomp", "onednn-devel-cpu-gomp"
_DIGEST_SIZE = 32


class UnavailableError(Exception):
    """Says in one sentence why there is no native code."""


def load() -> ctypes.CDLL:
    """Loads the shim, compiling it if this installation has not yet done so.

    Returns:
      The loaded library.

    Raises:
      UnavailableError: if it is switched off, or oneDNN, the compiler or the cache are missing.
    """
    if os.environ.get("SYNSCALE_ONEDNN") == "0":
        raise UnavailableError("switched off by SYNSCALE_ONEDNN=0")
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise UnavailableError(
            f"oneDNN is used on Linux x86-64 only, this is {sys.platform} {platform.machine()}"
        )
    library = _installed(_LIBRARY, "libdnnl.so.3")
    include = _installed(_HEADERS, "oneapi/dnnl/dnnl.hpp").parents[2]
    source = importlib.resources.files("synscale_jax.kernels").joinpath("onednn.cc").read_text()
    command = [*_compiler(), "-std=c++17", "-O2", "-shared", "-fPIC", "-w"]
    command += [f"-I{include}", f"-I{jax.ffi.include_dir()}"]
    link = [str(library), f"-Wl,-rpath,{library.parent}"]

    versions = [jaxlib.__version__, importlib.metadata.version(_LIBRARY), _version(command[0])]
    key = hashlib.sha256("\0".join([source, *versions, *command, *link]).encode()).hexdigest()
    path = _cache() / f"onednn-{key[:32]}.so"
    if not _intact(path):
        _build(source, command, link, path)
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise UnavailableError(f"{path} does not load: {error}") from None


def _installed(distribution: str, name: str) -> Path:
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        raise UnavailableError(
            f"{distribution} is not installed (pip install {_LIBRARY} {_HEADERS})"
        ) from None
    for file in files:
        if str(file).endswith("/" + name) and (path := Path(str(file.locate())).resolve()).exists():
            return path
    raise UnavailableError(f"{distribution} is installed without {name}")


def _compiler() -> list[str]:
    if chosen := os.environ.get("CXX"):
        command = shlex.split(chosen)
    else:
        command = [next(filter(shutil.which, ("c++", "g++", "clang++")), "c++")]
    if path := shutil.which(command[0]):
        return [path, *command[1:]]
    raise UnavailableError(f"there is no C++ compiler {command[0]}")


def _version(compiler: str) -> str:
    return subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    cache = Path(base) / "synscale_jax"
    try:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:
        raise UnavailableError(f"no cache for compiled code: {error}") from None
    return cache


def _intact(path: Path) -> bool:
    # The file ends with its own digest: loading a damaged library can kill the process.
    try:
        content = path.read_bytes()
    except OSError:
        return False
    code, digest = content[:-_DIGEST_SIZE], content[-_DIGEST_SIZE:]
    return hashlib.sha256(code).digest() == digest


def _build(source: str, command: list[str], link: list[str], path: Path) -> None:
    """Compiles into a directory of its own and renames: other processes may do the same."""
    try:
        with tempfile.TemporaryDirectory(dir=path.parent) as work:
            shim, built = Path(work, "onednn.cc"), Path(work, path.name)
            shim.write_text(source)
            done = subprocess.run(
                [*command, str(shim), "-o", str(built), *link],
                capture_output=True,
                text=True,
                timeout=300,
            )
            if done.returncode or not built.exists():
                said = (done.stderr.strip().splitlines() or ["it said nothing"])[0]
                raise UnavailableError(
                    f"{command[0]} failed with exit status {done.returncode}: {said}"
                )
            code = built.read_bytes()
            built.write_bytes(code + hashlib.sha256(code).digest())
            built.replace(path)
    except (OSError, subprocess.SubprocessError) as error:
        raise UnavailableError(f"the shim could not be compiled: {error}") from None
