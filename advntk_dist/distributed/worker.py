"""The part of a pooled actor that runs in Ray's worker process: its start, its signs of life, its errors as text."""

from __future__ import annotations

import os
import signal
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from advntk_dist import errors
from advntk_dist.errors import AdvNTKError, StoreError, StoreMismatchError
from advntk_dist.storage.paths import forwarded

FAKE_GPUS = "ADVNTK_FAKE_GPUS"
"""Environment variable of workers on machines whose GPUs only Ray believes in, as in tests."""


@dataclass(frozen=True)
class WorkerInfo:
    """Where a worker that is ready for tasks runs.

    Attributes
    ----------
    pid
        Number of its process.
    node, host
        Ray's name of its node, and the machine's.
    platform
        Platform that JAX computes on: "cpu", "gpu"; empty where the worker does not use JAX.
    details
        What the worker's ``prepare`` has returned.
    """

    pid: int
    node: str
    host: str
    platform: str
    details: dict[str, Any] = field(default_factory=dict)

    def as_event(self) -> dict[str, Any]:
        """The same as one flat dictionary, for logs of events."""
        return {"pid": self.pid, "node": self.node, "host": self.host, "platform": self.platform, **self.details}


@dataclass(frozen=True)
class Failure:
    """A task that cannot be done, or a worker that cannot start; trying again would not help.

    Errors cross Ray as text, as not every exception survives pickling.

    Attributes
    ----------
    kind
        Name of the error's class.
    message
        One line for the user.
    """

    kind: str
    message: str

    @classmethod
    def of(cls, error: Exception, where: str = "") -> Failure:
        """The failure that an error means; ``where``, as "tile (0, 3)", is put before messages that lack it."""
        name = type(error).__name__
        said = str(error) if isinstance(error, AdvNTKError) else f"{name}: {error}"
        return cls(name, said if where in said else f"{where}: {said}")

    def as_error(self, otherwise: type[AdvNTKError]) -> AdvNTKError:
        """The error again: of its own class where that is one of the package's, else of the class ``otherwise``."""
        known = getattr(errors, self.kind, None)
        if not (isinstance(known, type) and issubclass(known, AdvNTKError)):
            return otherwise(self.message)
        if issubclass(known, StoreMismatchError):  # is made from fields, which are in the message by now
            return StoreError(self.message)
        return known(self.message)


class PooledActor:
    """Base of the classes that an :class:`~advntk_dist.distributed.pool.ActorPool` runs as Ray actors.

    A subclass gives :meth:`prepare` and methods that tasks call; tasks of one actor may run at the same time, in
    threads.
    """

    uses_jax = True
    """Whether :meth:`ready` imports JAX and checks that it computes on the GPU that Ray has reserved."""

    def prepare(self, *job: Any) -> dict[str, Any]:
        """Take up a job, given its arguments; returns details for :class:`WorkerInfo`."""
        raise NotImplementedError

    def rest(self) -> None:
        """Free what belongs to a job that is over, above all shared memory of the node."""

    def ready(self, *job: Any) -> WorkerInfo | Failure:
        """Take up a job, and report where this worker runs."""
        host, platform = socket.gethostname(), ""
        try:
            import ray

            if self.uses_jax:
                import jax

                if (wrong := unused_gpu()) is not None:
                    return Failure("", f"a worker on {host} {wrong}")
                platform = jax.default_backend()
            details = self.prepare(*job)
            return WorkerInfo(os.getpid(), ray.get_runtime_context().get_node_id(), host, platform, details)
        except Exception as error:
            return Failure.of(error, f"a worker on {host} cannot start")

    def call(self, method: str, where: str, *arguments: Any) -> Any:
        """What a method returns, or a :class:`Failure` where it raises; ``where`` names the task in messages."""
        try:
            return getattr(self, method)(*arguments)
        except Exception as error:
            return Failure.of(error, where)

    def ping(self) -> None:
        """Answer at once, unless the process hangs."""


def unused_gpu() -> str | None:
    """What is wrong where this worker holds a GPU and JAX does not compute on it; None where nothing is.

    JAX takes the CPU with no more than a warning where it finds no GPU that it can use: the work would go on, far
    slower, and the GPU would stay idle.
    """
    import jax
    import ray

    held = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
    if not held or jax.default_backend() != "cpu" or os.environ.get(FAKE_GPUS):
        return None
    return (
        f"holds GPU {', '.join(held)}, and JAX computes on the CPU there; install jax[cuda13] on that node, unset "
        "JAX_PLATFORMS and see `nvidia-smi`, or start Ray there with --num-gpus=0 to have its cores compute"
    )


def worker_environment(cpus: int, gpu: bool) -> dict[str, str]:
    """Environment of a worker process, in place before JAX starts.

    XLA on CPU would take every core in each process; NPROC and the thread counts keep a worker to its own. Workers
    without a GPU must not see one: JAX would reserve most of its memory, and Ray hides none from those that ask for
    none.
    """
    threads = str(cpus)
    env = forwarded() | {
        "NPROC": threads,
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "ZARR_THREADING__MAX_WORKERS": threads,
        "PYTHONPATH": import_path(),
    }
    if gpu:
        env |= {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.90"}
    else:
        env |= {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    return env


def import_path() -> str:
    """PYTHONPATH for workers: what this process imports from, outside its Python installation, and where it runs.

    User networks are named by import path, so a worker must find what the driver finds.
    """
    installed = tuple({str(Path(p).resolve()) for p in (sys.prefix, sys.base_prefix)})
    here = os.getcwd()
    folders = [here, *(entry or here for entry in sys.path)]
    kept = [f for f in folders if os.path.isdir(f) and not str(Path(f).resolve()).startswith(installed)]
    return os.pathsep.join(dict.fromkeys(kept))


def end_process(class_name: str, pid: int) -> None:
    """Kill the process of an actor of this class on this node; nothing where the number is another process's by now."""
    import psutil

    try:
        process = psutil.Process(pid)
        if class_name in " ".join(process.cmdline()):
            process.send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        return
