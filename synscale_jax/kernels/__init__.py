"""Kernels: where convolutions run, and how fast."""

from synscale_jax.kernels.convolution import conv_general_dilated, convolution_path

__all__ = ["conv_general_dilated", "convolution_path"]
