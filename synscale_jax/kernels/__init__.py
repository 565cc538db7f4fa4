"""Kernels: where convolutions run, and how fast."""

from synscale_jax.kernels.convolution import conv_general_dilated, convolution_path
from synscale_jax.kernels.onednn import available, why_not

__all__ = ["available", "conv_general_dilated", "convolution_path", "why_not"]
