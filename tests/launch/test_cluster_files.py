"""What lies in cluster: ray up files under Ray's schema, the Slurm script and its scheduler simulated, local nodes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "cluster"
SMALL = [
    "--set", "data.n_train=120", "--set", "data.n_val=40", "--set", "data.n_test=40", "--set", "gram.tile=40",
    "--set", "train.steps=2", "--set", "train.batch=16", "--set", "evaluation.times=[1e-3,1e-2]",
]  # fmt: skip


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_ray_up_file_meets_rays_schema(name: str) -> None:
    config: dict[str, Any] = yaml.safe_load((CLUSTER / f"{name}.yaml").read_text(encoding="utf-8"))
    prepared = prepare_config(config)
    validate_config(prepared)
    assert prepared["provider"]["type"] == name
    worker = prepared["available_node_types"]["gpu"]
    assert worker["resources"]["GPU"] == 1
    assert worker["max_workers"] > worker["min_workers"], "workers come and go"
    starts = [*prepared["head_start_ray_commands"], *prepared["worker_start_ray_commands"]]
    assert all("RAY_AUTH_MODE=token" in line for line in starts if "ray start" in line)
    # jobs are started with `python -m advntk_dist`, and inherit this
    assert all("export PATH=$HOME/advntk-dist/.venv/bin:$PATH" in line for line in starts if "ray start" in line)


def test_ray_up_file_that_is_wrong_is_found() -> None:
    config = yaml.safe_load((CLUSTER / "aws.yaml").read_text(encoding="utf-8"))
    config["max_workers"] = "many"
    with pytest.raises(Exception, match="many"):
        validate_config(prepare_config(config))


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_extras_that_nodes_install_exist(name: str) -> None:
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = re.findall(r"--extra (\S+)", (CLUSTER / f"{name}.yaml").read_text())
    assert asked
    assert set(asked) <= set(extras)


@pytest.fixture
def scheduler(tmp_path: Path) -> dict[str, str]:
    """A PATH on which Slurm's commands, ray and advntk write down how they were called."""
    tools = tmp_path / "bin"
    tools.mkdir()
    # a command that ends at once would have the workers' srun killed before they wrote down that they were called
    started = (
        f"for _ in {{1..400}}; do (( $(grep -c '^srun.* ray start' {tmp_path}/calls) >= 3 )) && break; sleep 0.05; done"
    )
    note = f'printf "%s\\n" "$(basename "$0") $*" >> {tmp_path}/calls; env > {tmp_path}/env.$(basename "$0")'
    scripts = {
        "scontrol": "printf 'node1\\nnode2\\nnode3\\n'",
        # what srun is told of nodes ends where the command begins
        "srun": f'{note}\nwhile [[ $1 == -* ]]; do [[ $1 == -w ]] && shift; shift; done\nexec "$@"',
        "hostname": "echo fe80::1 10.1.2.3 192.168.0.7",
        "ray": f"{note}\n[[ $* == *--block* ]] && exec sleep 60\nexit ${{FAKE_RAY:-0}}",
        "advntk": f"{note}\n{started}\nexit ${{FAKE_ADVNTK:-0}}",
    }
    for name, script in scripts.items():
        (tools / name).write_text(f"#!/bin/bash\n{script}\n")
        (tools / name).chmod(0o755)
    return {
        "PATH": f"{tools}:{os.environ['PATH']}", "HOME": str(tmp_path), "CALLS": str(tmp_path / "calls"),
        "SLURM_JOB_ID": "123456", "SLURM_JOB_NODELIST": "node[1-3]", "SLURM_CPUS_PER_TASK": "16",
        "SLURM_GPUS_ON_NODE": "4",
    }  # fmt: skip


def _submit(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(CLUSTER / "slurm.sbatch"), *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_slurm_starts_ray_everywhere_and_the_command_once(scheduler: dict[str, str]) -> None:
    done = _submit(scheduler, "run", "digits", "--out", "/shared/run with space")
    assert done.returncode == 0, done.stderr
    calls = Path(scheduler["CALLS"]).read_text().splitlines()
    (launch,) = [c for c in calls if c.startswith("ray ")]
    address = f"10.1.2.3:{20000 + 123456 % 20000}"
    assert launch.startswith(f"ray symmetric-run --address {address} --min-nodes 3 --num-cpus=16 --num-gpus=4 -- ")
    assert launch.endswith(f"advntk run digits --out /shared/run with space --address {address}")
    assert any(c.startswith("srun --nodes=3 --ntasks=3") for c in calls)


def test_slurm_head_and_workers(scheduler: dict[str, str]) -> None:
    done = _submit(scheduler | {"ADVNTK_LAUNCH": "head-workers"}, "run", "digits")
    assert done.returncode == 0, done.stderr
    calls = Path(scheduler["CALLS"]).read_text().splitlines()
    starts = [c for c in calls if c.startswith("srun") and "ray start" in c]
    assert sum("--head" in c for c in starts) == 1
    assert {host for c in starts for host in re.findall(r"-w (node\d)", c)} == {"node1", "node2", "node3"}
    assert [c for c in calls if c.startswith("advntk")] == ["advntk run digits --address 10.1.2.3:23456"]


@pytest.mark.parametrize(("launch", "failing"), [("symmetric", "FAKE_RAY"), ("head-workers", "FAKE_ADVNTK")])
def test_slurm_job_fails_as_the_command_does(scheduler: dict[str, str], launch: str, failing: str) -> None:
    assert _submit(scheduler | {"ADVNTK_LAUNCH": launch, failing: "3"}, "run", "digits").returncode == 3


def test_slurm_token_is_in_no_argument(scheduler: dict[str, str]) -> None:
    secret = "5" * 64
    done = _submit(scheduler | {"RAY_AUTH_TOKEN": secret}, "run", "digits")
    assert secret not in done.stdout + done.stderr + Path(scheduler["CALLS"]).read_text()
    environment = Path(scheduler["CALLS"]).with_name("env.ray").read_text()
    assert f"RAY_AUTH_TOKEN={secret}" in environment
    assert "RAY_AUTH_MODE=token" in environment


def test_slurm_makes_a_token_where_there_is_none(scheduler: dict[str, str]) -> None:
    tokens = set()
    for _ in range(2):
        _submit(scheduler, "run", "digits")
        environment = Path(scheduler["CALLS"]).with_name("env.ray").read_text()
        tokens.add(re.findall(r"^RAY_AUTH_TOKEN=([0-9a-f]{64})$", environment, re.MULTILINE)[0])
    assert len(tokens) == 2


@pytest.mark.parametrize(
    ("changes", "words", "message"),
    [({}, [], "usage"), ({"SLURM_JOB_NODELIST": ""}, ["run", "digits"], "usage"),
     ({"ADVNTK_LAUNCH": "magic"}, ["run", "digits"], "ADVNTK_LAUNCH is magic")],
)  # fmt: skip
def test_slurm_wrong_use(scheduler: dict[str, str], changes: dict[str, str], words: list[str], message: str) -> None:
    done = _submit(scheduler | changes, *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def _local(*words: str, timeout: int = 240) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(CLUSTER / "local.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def test_local_nodes_are_nodes() -> None:
    look = (
        "import ray; ray.init('{address}', log_to_driver=False); print('alive', sum(n['Alive'] for n in ray.nodes()))"
    )
    done = _local("--nodes", "2", "--", sys.executable, "-c", look + "; raise SystemExit(7)")
    assert "alive 2" in done.stdout, done.stderr
    assert done.returncode == 7


@pytest.mark.parametrize("words", [[], ["--nodes", "0", "--", "true"], ["--cpus", "0", "--", "true"]])
def test_local_wrong_use(words: list[str]) -> None:
    assert _local(*words).returncode == 2


@pytest.mark.cluster
def test_whole_run_on_three_local_nodes(tmp_path: Path) -> None:
    advntk = [sys.executable, "-m", "advntk_dist", "run", "digits", *SMALL]
    done = _local("--nodes", "3", "--", *advntk, "--out", str(tmp_path / "run"), "--address", "{address}")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "results.json").read_text())["gram"]["tiles"] == 6


def _alone() -> list[str]:
    """Words before a command that let it see no process of others, where the kernel permits that.

    ``ray symmetric-run`` refuses where it sees another Ray, and tests beside this one start some.
    """
    words = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]
    try:
        subprocess.run([*words, "true"], capture_output=True, timeout=20, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return words


@pytest.mark.cluster
@pytest.mark.parametrize(("launch", "job"), [("symmetric", "77"), ("head-workers", "78")])
def test_slurm_script_on_a_real_ray(tmp_path: Path, launch: str, job: str) -> None:
    """Scheduler simulated with one node, this machine; Ray, token and run are real."""
    tools = tmp_path / "bin"
    tools.mkdir()
    scripts = {
        "scontrol": "echo localhost",
        "srun": 'while [[ $1 == -* ]]; do [[ $1 == -w ]] && shift; shift; done\nexec "$@"',
        "hostname": "echo 127.0.0.1",
        "advntk": f'exec {sys.executable} -m advntk_dist "$@"',
    }
    for name, script in scripts.items():
        (tools / name).write_text(f"#!/bin/bash\n{script}\n")
        (tools / name).chmod(0o755)
    slurm = {
        "SLURM_JOB_ID": job,
        "SLURM_JOB_NODELIST": "localhost",
        "SLURM_CPUS_PER_TASK": "2",
        "ADVNTK_LAUNCH": launch,
    }
    path = f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    words = [*_alone(), "bash", str(CLUSTER / "slurm.sbatch"), "run", "digits", *SMALL, "--out", str(tmp_path / "run")]
    environment = os.environ | slurm | {"ADVNTK_LAUNCH": launch, "PATH": path, "HOME": str(tmp_path)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "run" / "report.html").exists()
