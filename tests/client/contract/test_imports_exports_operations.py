"""Data sets in and out, the operator's view, the key, and the command line on top of it all."""

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import miaod_client
import pytest
from miaod_client import Client, Cycle, Image, Project
from miaod_client._cli.main import app as miaod
from miaod_client._cli.session import ExitCode, Session
from starlette.testclient import TestClient
from typer.testing import CliRunner

from server.main import create_app
from server.settings import Settings

RunCycle = Callable[[], None]
DrawPictures = Callable[[Path, int], None]
CAR = {"class": "car", "x1": 1.0, "y1": 2.0, "x2": 20.0, "y2": 25.5, "difficult": False}


def test_a_folder_below_an_import_root_is_imported(
    client: Client, project: Project, tmp_path: Path, draw_pictures: DrawPictures
) -> None:
    draw_pictures(tmp_path / "roots" / "more", 2)
    (tmp_path / "roots" / "more" / "broken.png").write_bytes(b"no picture")
    job = client.imports.create(
        project=project.id, path=str(tmp_path / "roots" / "more"), labels=False, split="val"
    )
    ended = client.imports.wait(job.id, timeout=30)
    assert (ended.counts.created, ended.num_refused) == (2, 1)
    (refused,) = client.imports.refused(job.id, page_size=1)
    assert refused.name == "broken.png"
    assert client.images.list(project=project.id, split="val").total() == 2


def test_a_folder_outside_the_import_roots_is_refused(
    client: Client, project: Project, tmp_path: Path
) -> None:
    with pytest.raises(miaod_client.ApiError):
        client.imports.create(project=project.id, path=str(tmp_path))


def test_an_archive_is_uploaded_and_imported_with_its_labels(
    client: Client, project: Project, tmp_path: Path, draw_pictures: DrawPictures
) -> None:
    folder = tmp_path / "set"
    draw_pictures(folder, 2)
    coco = {
        "images": [{"id": 1, "file_name": "0.png", "width": 40, "height": 30}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 10, 12]}],
        "categories": [{"id": 1, "name": "bicycle"}],
    }
    (folder / "labels.json").write_text(json.dumps(coco))
    archive = shutil.make_archive(str(tmp_path / "set"), "zip", folder)
    sent: list[tuple[int, int]] = []
    job = client.imports.create(
        project=project.id,
        archive=archive,
        format="coco",
        add_classes=True,
        author="carla",
        on_progress=lambda *now: sent.append(now),
    )
    ended = client.imports.wait(job.id, timeout=30)
    assert sent[-1][0] == sent[-1][1]
    assert ended.counts.boxes == 1
    labeled = client.images.list(project=project.id, state="labeled").first()
    assert labeled is not None
    assert client.annotations.get(labeled.id).author == "carla"
    assert client.projects.get(project.id).classes == ["car", "person", "bicycle"]


def test_labels_are_exported(
    client: Client, project: Project, images: list[Image], tmp_path: Path
) -> None:
    client.annotations.put(images[0].id, boxes=[CAR], version=0)
    path = client.exports.download(project=project.id, to=tmp_path / "labels.json")
    coco = json.loads(path.read_text())
    assert [category["name"] for category in coco["categories"]] == ["car", "person"]
    assert len(coco["annotations"]) == 1
    folder = tmp_path / "out"
    folder.mkdir()
    voc = client.exports.download(project=project.id, to=folder, format="voc", images=True)
    assert voc.parent == folder
    assert voc.read_bytes().startswith(b"PK")


def test_workers_and_health_are_told(client: Client, trained: Cycle) -> None:
    (worker,) = client.workers.list()
    assert (worker.name, worker.live) == ("w", False)
    assert client.health.live().status == "ok"
    readiness = client.health.ready()
    assert readiness.ready
    assert {"database", "schema", "storage", "free_space"} <= set(readiness.checks)


def test_the_key_opens_a_server_that_has_one(tmp_path: Path, sqlite_template: Path) -> None:
    shutil.copyfile(sqlite_template, tmp_path / "miaod.db")
    settings = Settings(data_dir=tmp_path, admin_key="open sesame, please")
    with TestClient(create_app(settings)) as http:
        with pytest.raises(miaod_client.AuthenticationError):
            Client(http_client=http).projects.list().first()
        assert Client(http_client=http).health.live().status == "ok"
        assert (
            Client(http_client=http, api_key="open sesame, please").projects.list().first() is None
        )


def test_keys_are_made_changed_revoked_and_audited(http: TestClient, client: Client) -> None:
    assert client.session.get().open
    root = client.keys.create(name="root", role="admin")
    assert root.key not in repr(root)
    with pytest.raises(miaod_client.AuthenticationError):
        client.keys.list().first()
    admin = Client(http_client=http, api_key=root.key)
    one = admin.projects.create(name="one", classes=["car"])
    two = admin.projects.create(name="two", classes=["car"])
    ends = datetime.now(UTC) + timedelta(days=1)
    made = admin.keys.create(name="ana", role="annotator", projects=[one.id], expires_at=ends)
    assert made.expires_at == ends
    ana = Client(http_client=http, api_key=made.key)
    assert ana.session.get().user.name == "ana"
    assert [project.id for project in ana.projects.list()] == [one.id]
    with pytest.raises(miaod_client.NotFoundError):
        ana.projects.get(two.id)
    with pytest.raises(miaod_client.PermissionDeniedError):
        ana.projects.delete(one.id)
    assert admin.keys.update(made.id, projects=[two.id]).projects == [two.id]
    assert [project.id for project in ana.projects.list()] == [two.id]
    assert admin.keys.get(made.id).last_used_at is not None
    admin.keys.revoke(made.id)
    with pytest.raises(miaod_client.AuthenticationError):
        ana.session.get()
    assert [key.name for key in admin.keys.list()] == ["ana", "root"]
    entry = admin.audit.list(actor="root", action="key_revoked").first()
    assert entry is not None
    assert entry.object == made.id


def test_the_command_line_makes_keys_and_shows_who_did_what(http: TestClient) -> None:
    def run(*arguments: str, key: str | None = None, code: int = ExitCode.OK) -> str:
        session = Session(http_client=http, api_key=key)
        result = CliRunner().invoke(miaod, arguments, obj=session)
        assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
        return result.stdout

    root = run("keys", "create", "root", "--role", "admin").strip()
    run("keys", "list", code=ExitCode.REFUSED)
    run("projects", "create", "street", "--class", "car", key=root)
    run("keys", "create", "ana", "--role", "viewer", key=root, code=ExitCode.USAGE)
    ana = run("keys", "create", "ana", "--role", "viewer", "-p", "street", key=root).strip()
    assert "ana" in run("whoami", key=ana)
    run("keys", "update", "ana", "--name", "anna", "--all-projects", key=root)
    assert "anna" in run("keys", "show", "anna", key=root)
    assert "all" in run("keys", "list", key=root)
    run("keys", "revoke", "anna", key=root)
    run("keys", "revoke", "anna", key=root, code=ExitCode.REFUSED)
    run("whoami", key=ana, code=ExitCode.REFUSED)
    logged = run("audit", "list", "--actor", "root", key=root)
    assert [line.split()[3] for line in logged.splitlines()[1:]] == [
        "key_revoked",
        "key_changed",
        "key_created",
        "project_created",
    ]


def test_the_command_line_does_the_same(
    http: TestClient, tmp_path: Path, run_cycle: RunCycle, draw_pictures: DrawPictures
) -> None:
    def run(*arguments: str, code: int = ExitCode.OK) -> str:
        result = CliRunner().invoke(miaod, arguments, obj=Session(http_client=http))
        assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
        return result.stdout

    draw_pictures(tmp_path / "pool", 4)
    (tmp_path / "pool" / "bad.png").write_bytes(b"no picture")
    run("projects", "create", "street", "--class", "car", "--class", "person")
    uploaded = run(
        "images", "upload", "-p", "street", str(tmp_path / "pool"), code=ExitCode.PARTLY_REFUSED
    )
    assert uploaded == "4 created, 0 there already, 1 refused\n"
    cycle = json.loads(run("cycles", "create", "-p", "street", "--budget", "2", "--json"))
    run_cycle()
    assert "succeeded" in run("cycles", "wait", cycle["id"])
    claim = json.loads(run("queries", "claim", "-p", "street", "-n", "2", "--json"))
    first, second = claim["items"]
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps([CAR]))
    token = claim["claim_token"]
    run(
        *("annotations", "put", first["image"]["id"], "--boxes", str(boxes)),
        *("--version", "0", "--claim-token", token),
    )
    run("queries", "release", second["id"], "--claim-token", token)
    assert "labeled" in run("queries", "list", "-p", "street", "--state", "all")
    assert "car" in run("annotations", "show", first["image"]["id"])
    assert json.loads(run("projects", "show", "street", "--json"))["counts"]["labeled"] == 1
    assert "ready" in run("health")
    run("cycles", "show", "019ab3a1-5f0e-7cc2-9d5b-3a9d2f0c1b7e", code=ExitCode.REFUSED)
