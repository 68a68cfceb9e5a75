"""Attacks on kernel predictors: one interface, and one registry that knows each of them by name.

The functions are ``advntk_dist.pgd`` and its siblings. Nothing is imported here, so that a configuration can ask the
registry without loading JAX.
"""
