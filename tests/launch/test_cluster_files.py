"""What lies in cluster: ray up files under Ray's schema, the Slurm script and its scheduler simulated, local nodes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
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
    "--set", "evaluation.tier=none",
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


@pytest.mark.parametrize(
    ("name", "package", "store"), [("aws", "boto3", "s3"), ("gcp", "google-api-python-client", "gcs")]
)
def test_nodes_install_what_they_need(name: str, package: str, store: str) -> None:
    """The head's autoscaler imports its provider's package; workers compute, and all nodes reach the store."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    prepared = prepare_config(yaml.safe_load((CLUSTER / f"{name}.yaml").read_text(encoding="utf-8")))
    asked = {
        node: set(re.findall(r"--extra (\S+)", " ".join(prepared[f"{node}_setup_commands"])))
        for node in ("head", "worker")
    }
    assert asked == {"head": {"cluster", store, name}, "worker": {"cluster", store, "cuda"}}
    assert asked["head"] | asked["worker"] <= set(extras)
    assert [re.split("[<>=]", requirement)[0] for requirement in extras[name]] == [package]


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_nodes_have_the_uv_of_the_image_and_drivers_for_its_cuda(name: str) -> None:
    text = (CLUSTER / f"{name}.yaml").read_text()
    image = (ROOT / "deploy" / "Containerfile").read_text()
    assert re.findall(r"/uv/([\d.]+)/install.sh", text) == re.findall(r"uv==([\d.]+)", image)
    images = {t["node_config"].get("ImageId") for t in yaml.safe_load(text)["available_node_types"].values()}
    assert not images & {"", "latest_dlami"}, "Ray's default is an Ubuntu 18.04"
    for driver in re.findall(r"/family/\S*-nvidia-(\d+)$", text, re.MULTILINE):
        assert int(driver) >= 580, "CUDA 13 needs this"


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_readme_names_what_is_to_be_set(name: str) -> None:
    """And a file system is not among it: what mounts one is a comment."""
    text = (CLUSTER / f"{name}.yaml").read_text()
    lines = [line.split(" #")[0] for line in text.splitlines() if not line.lstrip().startswith("#")]
    wanted = set(re.findall(r"[\w-]*YOUR[A-Z-]*", "\n".join(lines)))
    assert wanted
    readme = (CLUSTER / "README.md").read_text()
    assert {word for word in wanted if f"`{word}`" not in readme} == set()
    assert not [line for line in lines if "mount" in line and "file_mounts" not in line]
    locked = [line for line in text.splitlines() if "apt-get" in line]
    assert all("-o DPkg::Lock::Timeout=" in line for line in locked), "a new machine updates itself at first"


EC2 = """
import copy, sys, yaml
from moto import mock_aws
from moto.ec2.models.instance_types import InstanceTypeBackend
# Ray asks for the whole list, which takes seconds to write and to read.
every = InstanceTypeBackend.instance_types
every[:] = [kind for kind in every if kind.name.partition(".")[0] in ("m6i", "g6e")]
with mock_aws():
    import boto3
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler._private.commands import _bootstrap_config
    from ray.autoscaler._private.util import prepare_config
    config = yaml.safe_load(open(sys.argv[1]))
    types = config["available_node_types"]
    region = config["provider"]["region"]
    for node in types.values():
        name = node["node_config"]["IamInstanceProfile"]["Name"]
        boto3.client("iam", region_name=region).create_instance_profile(InstanceProfileName=name)
    ready = _bootstrap_config(prepare_config(config), no_config_cache=True)
    provider = AWSNodeProvider(ready["provider"], ready["cluster_name"])
    for name in ("head", "gpu"):
        wanted = copy.deepcopy(ready["available_node_types"][name]["node_config"])
        (made,) = provider.create_node(wanted, {"ray-node-kind": "worker", "ray-user-node-type": name}, 1).values()
        profile = made.iam_instance_profile["Arn"].rpartition("/")[2]
        print("made", name, made.instance_type, made.image_id, profile, made.instance_lifecycle or "on-demand")
"""


def test_ec2_takes_what_ray_asks_of_it(tmp_path: Path) -> None:
    """Ray's own provider, against a server of EC2's protocol in its process."""
    words = [sys.executable, "-W", "ignore", "-c", EC2, str(CLUSTER / "aws.yaml")]
    environment = os.environ | {"HOME": str(tmp_path)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("made")] == [
        "made head m6i.2xlarge ami-YOURS YOUR-HEAD-PROFILE on-demand",
        "made gpu g6e.2xlarge ami-YOURS YOUR-WORKER-PROFILE spot",
    ]


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
        "hostname": (
            "[[ $1 == --ip-address ]] && echo ${FAKE_NAME-fe80::1 10.1.2.3 192.168.0.7}\n"
            "[[ $1 == --all-ip-addresses ]] && echo ${FAKE_INTERFACES-10.1.2.3 172.17.0.1}\nexit 0"
        ),
        "ray": (
            f"{note}\n[[ $* == *--head* && -n ${{FAKE_HEAD:-}} ]] && {{ echo no room >&2; exit $FAKE_HEAD; }}\n"
            "[[ $* == *health-check* ]] && exit ${FAKE_HEALTH:-0}\n"
            "[[ $* == *--block* ]] && exec sleep 60\nexit ${FAKE_RAY:-0}"
        ),
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
    address = f"10.1.2.3:{20000 + 123456 % 10000}"
    assert launch.startswith(f"ray symmetric-run --address {address} --min-nodes 3 --num-cpus=16 --num-gpus=4 -- ")
    assert launch.endswith(f"advntk run digits --out /shared/run with space --address {address}")
    (step,) = [c for c in calls if c.startswith("srun --nodes=3 --ntasks=3 ")]
    assert "--cpus-per-task=16 " in step, "srun does not take it over"


def test_slurm_head_and_workers(scheduler: dict[str, str]) -> None:
    done = _submit(scheduler | {"ADVNTK_LAUNCH": "head-workers"}, "run", "digits")
    assert done.returncode == 0, done.stderr
    calls = Path(scheduler["CALLS"]).read_text().splitlines()
    starts = [c for c in calls if c.startswith("srun") and "ray start" in c]
    assert sum("--head" in c for c in starts) == 1
    assert all("--cpus-per-task=16 " in c[: c.index(" ray ")] for c in starts)
    assert {host for c in starts for host in re.findall(r"-w (node\d)", c)} == {"node1", "node2", "node3"}
    assert [c for c in calls if c.startswith("advntk")] == ["advntk run digits --address 10.1.2.3:23456"]


def _address_of(scheduler: dict[str, str], **changes: str) -> str:
    done = _submit(scheduler | changes, "run", "digits")
    assert done.returncode == 0, done.stderr
    (launch,) = [c for c in Path(scheduler["CALLS"]).read_text().splitlines() if c.startswith("ray ")]
    return launch.split("--address ")[1].split(":")[0]


@pytest.mark.parametrize(
    ("name", "interfaces", "address"),
    [
        ("127.0.1.1", "10.9.8.7 172.17.0.1", "10.9.8.7"),
        ("127.0.1.1 10.1.1.1", "", "10.1.1.1"),
        ("fe80::1", "fe80::1 10.9.8.7", "10.9.8.7"),
        ("", "10.9.8.7", "10.9.8.7"),
    ],
)
def test_slurm_head_has_an_address_that_others_reach(
    scheduler: dict[str, str], name: str, interfaces: str, address: str
) -> None:
    assert _address_of(scheduler, FAKE_NAME=name, FAKE_INTERFACES=interfaces) == address


def test_slurm_head_address_may_be_given(scheduler: dict[str, str]) -> None:
    assert _address_of(scheduler, FAKE_NAME="", FAKE_INTERFACES="", ADVNTK_HEAD_IP="10.5.5.5") == "10.5.5.5"


@pytest.mark.parametrize(("name", "interfaces"), [("fe80::1", "fe80::1"), ("127.0.1.1", "127.0.0.1"), ("", "")])
def test_slurm_head_without_an_address_is_one_clear_line(scheduler: dict[str, str], name: str, interfaces: str) -> None:
    done = _submit(scheduler | {"FAKE_NAME": name, "FAKE_INTERFACES": interfaces}, "run", "digits")
    assert done.returncode == 2
    assert done.stderr.startswith("node1: has no IPv4 address that other nodes could reach; give one: ADVNTK_HEAD_IP=")
    assert len(done.stderr.splitlines()) == 1
    assert " ray " not in Path(scheduler["CALLS"]).read_text()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"FAKE_HEAD": "1", "FAKE_HEALTH": "1"}, "the head on node1 ended before it answered"),
        ({"FAKE_HEALTH": "1", "ADVNTK_HEAD_TRIES": "1"}, "the head on node1 does not answer at 10.1.2.3:23456"),
    ],
    ids=["dies", "never answers"],
)
def test_slurm_head_that_does_not_come_ends_the_job(
    scheduler: dict[str, str], changes: dict[str, str], says: str
) -> None:
    done = _submit(scheduler | {"ADVNTK_LAUNCH": "head-workers"} | changes, "run", "digits")
    assert done.returncode == 1
    assert says in done.stderr
    calls = Path(scheduler["CALLS"]).read_text()
    assert "--num-cpus" in calls
    assert "ray start --block" not in calls, "no worker is started"
    assert "advntk run" not in calls


@pytest.mark.parametrize("job", [1, 9_999, 10_000, 123_456, 67_108_863])
def test_slurm_ports_are_neither_rays_workers_nor_the_kernels(scheduler: dict[str, str], job: int) -> None:
    _submit(scheduler | {"SLURM_JOB_ID": str(job)}, "run", "digits")
    (port,) = re.findall(
        r"^ray .*--address 10\.1\.2\.3:(\d+) --min", Path(scheduler["CALLS"]).read_text(), re.MULTILINE
    )
    assert 19_999 < int(port) < 32_768


def test_slurm_takes_the_memory_of_its_nodes() -> None:
    assert "#SBATCH --mem=0\n" in (CLUSTER / "slurm.sbatch").read_text()


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
