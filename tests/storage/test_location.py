"""Paths and URLs: which places there are, and that objects answer as files do."""

from __future__ import annotations

import pickle
import sys
import uuid
from pathlib import Path

import pytest

from advntk_dist.errors import RequestError
from advntk_dist.storage import paths
from advntk_dist.storage.durable import write_durable
from advntk_dist.storage.paths import Location, ObjectPath, forwarded, local, location
from tests.conftest import Refused


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("runs/a", "runs/a"),
        ("/runs/a", "/runs/a"),
        ("s3://bucket/runs/a", "s3://bucket/runs/a"),
        ("s3://bucket//runs/a/", "s3://bucket/runs/a"),
        ("gs://bucket/a", "gs://bucket/a"),
        ("s3://bucket/a@b:c", "s3://bucket/a@b:c"),
        ("/runs/a@b", "/runs/a@b"),
        ("s3://bucket", "s3://bucket"),
    ],
)
def test_places(text: str, shown: str) -> None:
    place = location(text)
    assert str(place) == shown
    assert location(place) is place
    assert isinstance(place, ObjectPath if "://" in text else Path)
    assert pickle.loads(pickle.dumps(place)) == place


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ftp://host/a", "s3://BUCKET/PATH or gs://BUCKET/PATH"),
        ("file:///a", "give a local path"),
        ("s3:///a", "not a place"),
        ("s3://bucket/../a", "write the path out"),
        ("s3://key:planted@bucket/a", "holds credentials"),
        ("s3://key:part/planted@bucket/a", "holds credentials"),
        ("ftp://key:part/planted@host/a", "holds credentials"),
        ("gs://key:planted/a", "holds credentials"),
        ("s3://bucket/a?signature=planted", "holds credentials"),
        ("s3://bucket/a#planted", "not a place"),
    ],
)
def test_other_urls_are_refused(text: str, says: str) -> None:
    with pytest.raises(RequestError, match=says) as caught:
        location(text)
    assert caught.value.exit_code == 2
    assert "planted" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_works_on_a_disk_only() -> None:
    assert local(Path("/a")) == Path("/a")
    with pytest.raises(RequestError, match=r"s3://bucket/a: .*local path"):
        local(location("s3://bucket/a"))


@pytest.mark.parametrize("kind", ["disk", "s3", "gs"])
def test_objects_answer_as_files_do(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    root: Location = tmp_path / "a"
    if kind != "disk":
        request.getfixturevalue(kind)
        root = location(f"{kind}://bucket/{uuid.uuid4().hex}/a")
    assert not root.exists()
    assert not root.is_dir()
    with pytest.raises(FileNotFoundError):
        (root / "x").read_bytes()
    (root / "b" / "c").mkdir(parents=True, exist_ok=True)
    file = root.joinpath("b", "c", "x.txt")
    write_durable(file, b"1")
    write_durable(file, "é".encode())
    assert file.read_text(encoding="utf-8") == "é"
    assert (file.name, file.parent.name, file.with_name("y").name) == ("x.txt", "c", "y")
    assert (file.is_file(), file.is_dir(), file.exists()) == (True, False, True)
    assert (root.is_file(), root.is_dir(), root.exists()) == (False, True, True)
    assert [path.name for path in root.iterdir()] == ["b"]
    assert root.parts[-1] == "a"
    file.unlink()
    assert not file.exists()
    file.unlink(missing_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "_MULTIPART", 2**20)
        patch.setattr(paths, "_PART", 5 * 2**20)
        write_durable(file, bytes(6 * 2**20))
    assert file.read_bytes() == bytes(6 * 2**20)
    if isinstance(root, ObjectPath):
        root.remove_tree()
        assert not root.exists()


@pytest.mark.parametrize(("url", "extra"), [("s3://plain/a", "advntk-dist[s3]"), ("gs://plain/a", "advntk-dist[gcs]")])
def test_without_obstore_one_line_says_what_to_install(
    url: str, extra: str, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    for module in ("obstore", "obstore.store"):
        monkeypatch.setitem(sys.modules, module, None)
    assert extra in refused(2, "status", url)


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("AWS_ENDPOINT_URL", "", "AWS_ENDPOINT_URL: not a URL"),
        ("AWS_ENDPOINT_URL", "planted", "AWS_ENDPOINT_URL: not a URL"),
        ("AWS_ENDPOINT_URL", "http://192.0.2.1:9000", "unencrypted"),
        ("ADVNTK_STORE_PATIENCE", "long", "ADVNTK_STORE_PATIENCE: must be a number of seconds"),
        ("ADVNTK_STORE_TIMEOUT", "-1", "ADVNTK_STORE_TIMEOUT: must be a number of seconds"),
    ],
)
def test_wrong_settings(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, says: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(RequestError, match=says) as caught:
        location("s3://bucket/a").exists()
    assert "planted" not in str(caught.value)


def test_wrong_google_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "key.json").write_text('{"type": "service_account", "private_key": "planted"}')
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    monkeypatch.delenv("GOOGLE_SERVICE_ACCOUNT")
    with pytest.raises(RequestError, match="gs://bucket: the settings of the object store") as caught:
        location("gs://bucket/a").exists()
    assert "planted" not in str(caught.value)


def test_workers_take_over_settings_and_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://store.example")
    monkeypatch.setenv("ADVNTK_STORE_PATIENCE", "7")
    assert {"AWS_ENDPOINT_URL": "https://store.example", "ADVNTK_STORE_PATIENCE": "7"}.items() <= forwarded().items()
    monkeypatch.setenv("GOOGLE_BASE_URL", "https://google.example")
    for name in ("SERVICE_ACCOUNT", "SERVICE_ACCOUNT_KEY", "APPLICATION_CREDENTIALS", "BEARER_TOKEN"):
        monkeypatch.setenv(f"GOOGLE_{name}", "planted")
    google = {name: value for name, value in forwarded().items() if name.startswith("GOOGLE_")}
    assert google == {"GOOGLE_BASE_URL": "https://google.example"}
    assert not {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} & forwarded().keys()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://user:planted@store.example")
    assert "planted" not in str(forwarded())
