"""Kernels of infinitely wide networks: values of tiles and their input gradients, one file a backend."""
