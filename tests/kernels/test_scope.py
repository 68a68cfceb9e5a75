"""Compiler options are used where the machine has them, and never needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from advntk_dist.kernels import scope


def test_the_options_compile() -> None:
    options: Any = scope.compiler_options()
    assert float(jax.jit(lambda x: 2 * x, compiler_options=options)(jnp.ones(()))) == 2.0
    if jax.default_backend() != "cpu":
        assert options is None


def test_an_option_that_the_compiler_does_not_know_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scope, "_has_avx512", lambda: True)
    monkeypatch.setattr(scope, "_WIDE_VECTORS", {"xla_cpu_no_such_option": 512})
    monkeypatch.setattr(scope, "_ONE_THREAD", {"xla_cpu_nor_this_one": False})
    assert scope.compiler_options() is None
    assert not scope.tile_compiler_options()


def test_tiles_are_computed_in_one_thread() -> None:
    if jax.default_backend() == "cpu":
        assert (scope.tile_compiler_options() or {})["xla_cpu_multi_thread_eigen"] is False


def test_wide_vectors_need_a_processor_that_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "cpuinfo"
    assert not scope._has_avx512(info), "not Linux"
    info.write_text("flags\t\t: fpu avx2 fma\n")
    assert not scope._has_avx512(info)
    info.write_text("flags\t\t: fpu avx2 avx512f avx512dq\n")
    assert scope._has_avx512(info)
    monkeypatch.setattr(scope, "_has_avx512", lambda: False)
    assert scope.compiler_options() is None
