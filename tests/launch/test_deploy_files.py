"""What lies in deploy: manifests under the schemas of Kubernetes and KubeRay, and what the image installs."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from advntk_dist.cli import advntk
from advntk_dist.config import load_config
from advntk_dist.data.sources import FOLDER_VARIABLE
from advntk_dist.jobs.job import RUNS

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
SCHEMA: dict[str, Any] = json.loads((Path(__file__).parent / "kuberay.json").read_text(encoding="utf-8"))
MANIFESTS = {path.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in DEPLOY.glob("*.yaml")}
VERSION = kubernetes_validate.latest_version()
RAY = sorted(name for name, manifest in MANIFESTS.items() if manifest["apiVersion"] == "ray.io/v1")


def _cluster(name: str) -> dict[str, Any]:
    spec: dict[str, Any] = MANIFESTS[name]["spec"]
    return dict(spec.get("rayClusterSpec", spec))


def _pods(name: str) -> list[dict[str, Any]]:
    groups = [_cluster(name)["headGroupSpec"], *_cluster(name)["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def _all_pods(name: str) -> list[dict[str, Any]]:
    """And the one that submits a job."""
    submitter = MANIFESTS[name]["spec"].get("submitterPodTemplate")
    return _pods(name) + ([submitter["spec"]] if submitter else [])


def _check(kind: str, spec: dict[str, Any]) -> None:
    jsonschema.validate(spec, {"$ref": f"#/$defs/{kind}", "$defs": SCHEMA["$defs"]})


def test_there_are_a_cluster_and_a_job() -> None:
    assert {MANIFESTS[name]["kind"] for name in RAY} == {"RayCluster", "RayJob"}


@pytest.mark.parametrize("name", RAY)
def test_ray_resources_have_fields_that_kuberay_knows(name: str) -> None:
    _check(MANIFESTS[name]["kind"], MANIFESTS[name]["spec"])


@pytest.mark.parametrize("key", ["backofLimit", "rayVersions"])
def test_a_misspelt_field_is_found(key: str) -> None:
    with pytest.raises(jsonschema.ValidationError, match=key):
        _check("RayJob", MANIFESTS["rayjob.yaml"]["spec"] | {key: 1})


@pytest.mark.parametrize("name", RAY)
def test_pods_are_pods(name: str) -> None:
    for spec in _all_pods(name):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec}
        kubernetes_validate.validate(pod, VERSION, strict=True)
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(pod | {"spec": spec | {"restartpolicy": "Never"}}, VERSION, strict=True)


@pytest.mark.parametrize("name", sorted(set(MANIFESTS) - set(RAY)))
def test_other_resources_meet_kubernetes_schema(name: str) -> None:
    kubernetes_validate.validate(MANIFESTS[name], VERSION, strict=True)


@pytest.mark.parametrize("name", RAY)
def test_clusters_ask_for_a_token_and_bound_what_they_take(name: str) -> None:
    cluster = _cluster(name)
    assert cluster["authOptions"] == {"mode": "token"}
    for spec in _all_pods(name):
        for container in spec["containers"]:
            assert container["resources"]["requests"] == container["resources"]["limits"]
            assert not any("value" in entry and "TOKEN" in entry["name"] for entry in container.get("env", []))
    volumes = [volume for spec in _pods(name) for volume in spec["volumes"]]
    claims = {v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v}
    assert claims == {MANIFESTS["storage.yaml"]["metadata"]["name"]}


def test_the_job_is_a_command_of_ours() -> None:
    program, name, *words = shlex.split(MANIFESTS["rayjob.yaml"]["spec"]["entrypoint"])
    assert program == "advntk"
    parsed = advntk.commands[name].make_context(name, words).params
    load_config(parsed["source"], parsed["overrides"])
    assert parsed["out"].startswith("/runs/")


@pytest.mark.parametrize("name", RAY)
def test_pods_meet_the_restricted_profile(name: str) -> None:
    """Of Kubernetes' Pod Security Standards; the autoscaler, which KubeRay adds to the head, included."""
    assert len(_all_pods(name)) == (3 if MANIFESTS[name]["kind"] == "RayJob" else 2)
    contexts = [_cluster(name)["autoscalerOptions"]["securityContext"]]
    for spec in _all_pods(name):
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == 1000
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        contexts += [container["securityContext"] for container in spec["containers"]]
    assert contexts == [{"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}] * len(contexts)


@pytest.mark.parametrize("name", RAY)
def test_pods_that_end_are_replaced_by_kuberay(name: str) -> None:
    """Under its autoscaler, version 2 since Ray 2.47, KubeRay refuses every other policy."""
    assert _cluster(name)["enableInTreeAutoscaling"] is True
    assert {spec["restartPolicy"] for spec in _all_pods(name)} == {"Never"}


@pytest.mark.parametrize("name", RAY)
def test_images_have_the_version_that_the_readme_builds(name: str) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    images = {container["image"] for spec in _all_pods(name) for container in spec["containers"]}
    assert images == {f"advntk-dist:{version}-cuda"}
    for text in ((DEPLOY / "README.md").read_text(), (DEPLOY / "Containerfile").read_text()):
        assert set(re.findall(r"-t (\S+)", text)) == {f"advntk-dist:{version}", *images}
        assert set(re.findall(r"advntk-dist:\S+", text)) <= {f"advntk-dist:{version}", *images}


@pytest.mark.parametrize("name", RAY)
def test_jobs_that_name_no_place_lie_in_the_volume(name: str) -> None:
    (container,) = _pods(name)[0]["containers"]
    places = {entry["name"]: entry["value"] for entry in container["env"]}
    (mount,) = container["volumeMounts"]
    assert places[RUNS] == mount["mountPath"]
    assert places[FOLDER_VARIABLE].startswith(mount["mountPath"] + "/")


def test_job_and_cluster_differ_in_nothing_but_the_job() -> None:
    assert _cluster("rayjob.yaml") == _cluster("raycluster.yaml")


def test_ray_version_is_one_that_we_run() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    newest = re.search(r'"ray<=([\d.]+)"', text)
    assert newest
    assert {_cluster(name)["rayVersion"] for name in RAY} == {newest[1]}


def test_image_installs_extras_that_exist_and_is_not_root() -> None:
    text = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    asked = set(re.findall(r"EXTRAS=([\w,-]+)", text + (DEPLOY / "README.md").read_text()))
    assert asked
    assert {extra for group in asked for extra in group.split(",")} <= extras
    last = text[text.rindex("FROM ") :]
    assert "USER 1000" in last
    assert re.search(r"PYTHON=\d+\.\d+\.\d+-slim", text), "the base is pinned"
    copied = {
        part for source in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE) for part in source.split()
    }
    assert all((ROOT / part).exists() for part in copied)
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert rules[0] == "*", "nothing is sent to the builder"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == copied, "but what is copied"
