"""The command line: what goes where, and how it ends."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest
from miaod_client import Cycle, CycleEvent
from miaod_client._cli import output, progress
from miaod_client._cli.main import app
from miaod_client._cli.session import ExitCode, Session
from rich.console import Console
from typer.testing import CliRunner, Result

Routes = dict[str, Any]
Miaod = Callable[..., Result]
PROJECT_ID = "019ab3a1-5f0e-7cc2-9d5b-3a9d2f0c1b7e"


class Server:
    """Answers by method and path; a list is answered step by step, the last one stays."""

    def __init__(self, routes: Routes) -> None:
        self._routes = {
            key: list(answer) if isinstance(answer, list) else [answer]
            for key, answer in routes.items()
        }
        self.requests: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        request.read()
        self.requests.append(request)
        steps = self._routes.get(f"{request.method} {request.url.path}")
        if steps is None:
            body = {"detail": f"no {request.url.path}", "code": "not_found", "request_id": "r-9"}
            return httpx2.Response(404, json=body)
        step = steps.pop(0) if len(steps) > 1 else steps[0]
        if isinstance(step, Exception):
            raise step
        return step if isinstance(step, httpx2.Response) else httpx2.Response(200, json=step)


def run(server: Server, *arguments: str, text: str | None = None) -> Result:
    with httpx2.Client(
        base_url="http://server.test", transport=httpx2.MockTransport(server)
    ) as http:
        return CliRunner().invoke(app, list(arguments), obj=Session(http_client=http), input=text)


def page(*items: Any) -> dict[str, Any]:
    return {"items": list(items), "next_cursor": None}


def test_a_table_goes_to_stdout_and_is_never_cut_when_piped(project_json: dict[str, Any]) -> None:
    name = "a very long name " * 20
    result = run(
        Server({"GET /projects": page({**project_json, "name": name})}), "projects", "list"
    )
    assert result.exit_code == 0
    header, row = result.stdout.splitlines()
    assert header.split() == ["ID", "NAME", "CLASSES", "CREATED"]
    assert name.strip() in row
    assert "car, person" in row
    assert result.stderr == ""


def test_the_labels_of_a_project_are_counted_in_two_tables() -> None:
    work = {"author": "ana", "annotations": 3, "images": 2, "boxes": 9, "seconds_median": 4.5}
    statistics = {
        "classes": [{"class": "car", "boxes": 9, "images": 2}],
        "authors": [{**work, "seconds_mean": 5.0, "last_at": "2026-11-23T08:00:00Z"}],
        "imported": 7,
    }
    server = Server({f"GET /projects/{PROJECT_ID}/statistics": statistics})
    result = run(server, "projects", "statistics", PROJECT_ID)
    assert result.exit_code == 0, result.stderr
    assert ["car", "9", "2"] in [line.split() for line in result.stdout.splitlines()]
    assert any(line.startswith("ana") and "4.5" in line for line in result.stdout.splitlines())
    assert "7 images have their labels from an import" in result.stderr
    assert json.loads(run(server, "projects", "statistics", PROJECT_ID, "--json").stdout)


def test_json_is_one_document_with_every_field_of_the_server(project_json: dict[str, Any]) -> None:
    server = Server({"GET /projects": page({**project_json, "new_field": 1})})
    result = run(server, "projects", "list", "--json")
    (project,) = json.loads(result.stdout)
    assert project["new_field"] == 1
    assert project["created_at"] == "2026-11-23T08:00:00Z"


def test_on_a_narrow_terminal_ids_stay_whole_and_free_text_is_cut(
    cycle_json: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Console(force_terminal=True, width=60, color_system=None)
    monkeypatch.setattr(output, "stdout", lambda: screen)
    long = {**cycle_json, "id": PROJECT_ID, "message": "waiting " * 30}
    result = run(Server({"GET /cycles": page(long)}), "cycles", "list")
    _, row = result.stdout.splitlines()
    assert row.startswith(PROJECT_ID)
    assert row.endswith("…")


def test_an_empty_list_says_what_to_do_on_stderr(project_json: dict[str, Any]) -> None:
    result = run(Server({"GET /projects": page()}), "projects", "list")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "miaod projects create" in result.stderr


def test_an_empty_list_is_still_json() -> None:
    result = run(Server({"GET /projects": page()}), "projects", "list", "--json")
    assert json.loads(result.stdout) == []


def test_a_cut_list_says_that_it_was_cut(project_json: dict[str, Any]) -> None:
    server = Server({"GET /projects": page(project_json, project_json, project_json)})
    result = run(server, "projects", "list", "--limit", "2")
    assert len(result.stdout.splitlines()) == 3
    assert "only the first 2" in result.stderr


def test_names_cannot_command_the_terminal(project_json: dict[str, Any]) -> None:
    named = {**project_json, "name": "\x1b[31mred[bold]"}
    result = run(Server({"GET /projects": page(named)}), "projects", "list")
    assert "\x1b" not in result.stdout
    assert "[31mred[bold]" in result.stdout


def test_a_refusal_is_one_sentence_on_stderr_and_exit_code_1() -> None:
    result = run(Server({}), "projects", "show", PROJECT_ID)
    assert result.exit_code == ExitCode.REFUSED
    assert result.stdout == ""
    assert result.stderr == f"no /projects/{PROJECT_ID} (404 not_found)\n"


def test_a_servers_own_error_names_the_request_for_the_log() -> None:
    body = {"detail": "a bug", "code": "internal", "request_id": "r-42"}
    server = Server({"GET /workers": httpx2.Response(500, json=body)})
    result = run(server, "workers", "list")
    assert result.exit_code == ExitCode.REFUSED
    assert "[request r-42]" in result.stderr


def test_an_unreachable_server_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    result = run(Server({"GET /healthz": httpx2.ConnectError("refused")}), "health")
    assert result.exit_code == ExitCode.REFUSED
    assert result.stderr == (
        "cannot reach http://server.test: refused; is the server running, and is this its "
        "address (--url or MIAOD_URL)?\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["cycles", "create"],
        ["cycles", "create", "-p", "x", "--budget", "0"],
        ["projects", "create", "street"],
        ["images", "list", "-p", "x", "--split", "train"],
        ["nonsense"],
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    result = run(Server({}), *arguments)
    assert result.exit_code == ExitCode.USAGE
    assert result.stdout == ""


def test_a_malformed_override_is_wrong_usage_and_says_the_right_form() -> None:
    result = run(Server({}), "cycles", "create", "-p", PROJECT_ID, "--set", "epochs")
    assert result.exit_code == ExitCode.USAGE
    assert "FIELD=VALUE" in result.stderr


def test_a_project_may_be_given_by_name(
    project_json: dict[str, Any], cycle_json: dict[str, Any], body_of: Callable[..., Any]
) -> None:
    server = Server({"GET /projects": page(project_json), "POST /cycles": cycle_json})
    arguments = ["--budget", "20", "--preset", "cpu", "--set", "batch_size=4", "--set", "amp=true"]
    result = run(server, "cycles", "create", "--project", "street", *arguments)
    assert result.exit_code == 0
    assert dict(server.requests[0].url.params)["name"] == "street"
    assert body_of(server.requests[1]) == {
        "project": "p1",
        "budget": 20,
        "training": {"preset": "cpu", "batch_size": 4, "amp": True},
    }


def test_options_of_the_strategy_are_options_of_the_command(
    project_json: dict[str, Any], cycle_json: dict[str, Any], body_of: Callable[..., Any]
) -> None:
    server = Server({"GET /projects": page(project_json), "POST /cycles": cycle_json})
    for arguments, strategy in (
        (["--strategy", "core-set"], {"name": "core-set"}),
        (["--class-balance", "1"], {"name": "mi-aod", "class_balance": 1.0}),
        (
            ["--strategy", "entropy", "--diversity", "4"],
            {"name": "entropy", "diversity": 4.0},
        ),
    ):
        result = run(server, "cycles", "create", "-p", "street", *arguments)
        assert result.exit_code == 0
        assert body_of(server.requests[-1])["strategy"] == strategy


def test_a_cycle_is_taken_up_by_its_id(cycle_json: dict[str, Any]) -> None:
    server = Server({f"POST /cycles/{cycle_json['id']}/resume": {**cycle_json, "state": "queued"}})
    result = run(server, "cycles", "resume", cycle_json["id"], "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["state"] == "queued"


def test_an_unknown_project_name_is_a_sentence() -> None:
    result = run(Server({"GET /projects": page()}), "images", "list", "-p", "nowhere")
    assert result.exit_code == ExitCode.REFUSED
    assert "no project named 'nowhere'" in result.stderr


def test_waiting_for_a_cycle_prints_it_and_logs_what_it_does(cycle_json: dict[str, Any]) -> None:
    steps = [
        {**cycle_json, "state": "running", "stage": "label", "progress": 0.2},
        {**cycle_json, "state": "running", "stage": "label", "progress": 0.3, "message": "step 9"},
        {**cycle_json, "state": "running", "stage": "score", "progress": 0.8},
        {**cycle_json, "state": "succeeded", "progress": 1.0, "metrics": {"map50": 0.625}},
    ]
    server = Server({"GET /cycles/c1": [cycle_json, *steps]})
    result = run(server, "cycles", "wait", "c1")
    assert result.exit_code == 0
    assert "0.625" in result.stdout
    assert "cycle 1: 80% running, score" in result.stderr
    assert "30%" not in result.stderr  # a message that only counts on waits for its turn


@pytest.mark.parametrize(
    ("state", "word"), [("failed", "failed: out of memory"), ("cancelled", "was cancelled")]
)
def test_a_cycle_that_does_not_succeed_is_exit_code_3(
    state: str, word: str, cycle_json: dict[str, Any]
) -> None:
    server = Server({"GET /cycles/c1": {**cycle_json, "state": state, "error": "out of memory"}})
    result = run(server, "cycles", "wait", "c1")
    assert result.exit_code == ExitCode.JOB_FAILED
    assert word in result.stderr


def test_a_wait_that_times_out_is_exit_code_4(cycle_json: dict[str, Any]) -> None:
    server = Server({"GET /cycles/c1": {**cycle_json, "state": "running"}})
    result = run(server, "cycles", "wait", "c1", "--timeout", "0.01")
    assert result.exit_code == ExitCode.TIMED_OUT
    assert "it goes on" in result.stderr


def test_an_interrupted_wait_says_how_to_stop_the_cycle(cycle_json: dict[str, Any]) -> None:
    server = Server({"GET /cycles/c1": [cycle_json, KeyboardInterrupt()]})

    def interrupted(request: httpx2.Request) -> httpx2.Response:
        if len(server.requests) == 1:
            raise KeyboardInterrupt
        return server(request)

    with httpx2.Client(
        base_url="http://server.test", transport=httpx2.MockTransport(interrupted)
    ) as http:
        result = CliRunner().invoke(app, ["cycles", "wait", "c1"], obj=Session(http_client=http))
    assert result.exit_code == ExitCode.INTERRUPTED
    assert "miaod cycles cancel c1" in result.stderr


def test_upload_counts_and_names_the_refused_with_exit_code_5(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"a")
    (tmp_path / "b.jpg").write_bytes(b"b")
    items = [
        {"name": "a.jpg", "status": "created", "id": "i1", "reason": None},
        {"name": "b.jpg", "status": "rejected", "id": None, "reason": "is no picture"},
    ]
    server = Server({"POST /images": {"items": items}})
    result = run(server, "images", "upload", "-p", PROJECT_ID, str(tmp_path))
    assert result.exit_code == ExitCode.PARTLY_REFUSED
    assert result.stdout == "1 created, 0 there already, 1 refused\n"
    assert result.stderr == "refused b.jpg: is no picture\n"


def test_uploading_what_does_not_exist_is_wrong_usage(tmp_path: Path) -> None:
    result = run(Server({}), "images", "upload", "-p", PROJECT_ID, str(tmp_path / "nowhere"))
    assert result.exit_code == ExitCode.USAGE
    assert "does not exist" in result.stderr


def test_an_interrupted_upload_says_that_it_can_be_taken_up_again(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"a")

    def interrupted(request: httpx2.Request) -> httpx2.Response:
        raise KeyboardInterrupt

    with httpx2.Client(
        base_url="http://server.test", transport=httpx2.MockTransport(interrupted)
    ) as http:
        arguments = ["images", "upload", "-p", PROJECT_ID, str(tmp_path)]
        result = CliRunner().invoke(app, arguments, obj=Session(http_client=http))
    assert result.exit_code == ExitCode.INTERRUPTED
    assert "the same command again" in result.stderr


def test_an_archive_that_is_not_there_is_named_without_an_error_number(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.zip")
    result = run(Server({}), "imports", "create", "-p", PROJECT_ID, "--archive", missing)
    assert result.exit_code == ExitCode.USAGE
    assert result.stderr == f"{missing}: No such file or directory\n"


def test_boxes_can_come_from_stdin(body_of: Callable[..., Any]) -> None:
    box = {"class": "car", "x1": 1, "y1": 2, "x2": 3, "y2": 4}
    saved = {"state": "labeled", "version": 1, "boxes": [box]}
    server = Server({"PUT /images/i1/annotations": saved})
    arguments = ["annotations", "put", "i1", "--boxes", "-", "--version", "0"]
    result = run(server, *arguments, text=json.dumps([box]))
    assert result.exit_code == 0
    assert body_of(server.requests[0])["boxes"][0]["class"] == "car"
    assert "version 1" in result.stderr


def test_boxes_that_are_no_json_name_their_file(tmp_path: Path) -> None:
    (tmp_path / "boxes.json").write_bytes(b"\xff\xd8")
    result = run(Server({}), "annotations", "put", "i1", "--boxes", str(tmp_path / "boxes.json"))
    assert result.exit_code == ExitCode.USAGE
    assert "boxes.json must hold a JSON list of boxes" in result.stderr


def test_a_refused_key_says_where_it_is_set() -> None:
    body = {"detail": "send the key", "code": "unauthorized", "request_id": "r-1"}
    result = run(Server({"GET /workers": httpx2.Response(401, json=body)}), "workers", "list")
    assert result.exit_code == ExitCode.REFUSED
    assert "MIAOD_API_KEY" in result.stderr


def test_boxes_without_a_class_are_wrong_usage() -> None:
    result = run(
        Server({}), "annotations", "put", "i1", "--boxes", "-", "--version", "0", text='[{"x1": 1}]'
    )
    assert result.exit_code == ExitCode.USAGE
    assert "box 1" in result.stderr


def test_a_claim_prints_its_token_as_json(query_json: Callable[..., dict[str, Any]]) -> None:
    answer = {
        "claim_token": "t",
        "expires_at": "2026-11-23T08:10:00Z",
        "items": [query_json(1)],
    }
    server = Server({"POST /queries/claim": answer})
    result = run(server, "queries", "claim", "-p", PROJECT_ID, "--author", "ana", "--json")
    claim = json.loads(result.stdout)
    assert claim["claim_token"] == "t"
    assert claim["items"][0]["predictions"][0]["class"] == "car"


def test_deleting_a_project_asks_first(project_json: dict[str, Any]) -> None:
    counts = dict.fromkeys(
        ["images", "labeled", "unlabeled", "skipped", "val", "val_labeled", "test", "test_labeled"],
        7,
    )
    shown = {**project_json, "counts": {**counts, "boxes": 9}}
    server = Server(
        {
            f"GET /projects/{PROJECT_ID}": shown,
            "DELETE /projects/p1": httpx2.Response(204),
        }
    )
    refused = run(server, "projects", "delete", PROJECT_ID, text="n\n")
    assert refused.exit_code == 1
    assert [request.method for request in server.requests] == ["GET"]
    assert "7 images" in refused.stderr
    assert run(server, "projects", "delete", PROJECT_ID, "--yes").exit_code == 0
    assert server.requests[-1].method == "DELETE"


def test_an_unready_server_is_exit_code_1_and_says_what_is_amiss() -> None:
    ready = {"ready": False, "checks": {"free_space": {"ok": False, "detail": "12 MB left"}}}
    server = Server(
        {
            "GET /healthz": {"status": "ok", "version": "0.1.0"},
            "GET /readyz": httpx2.Response(503, json=ready),
        }
    )
    result = run(server, "health")
    assert result.exit_code == ExitCode.REFUSED
    assert "BAD free_space: 12 MB left" in result.stdout


def test_a_downloads_path_is_what_stdout_has(tmp_path: Path) -> None:
    server = Server({"GET /models/m1/checkpoint": httpx2.Response(200, content=b"weights")})
    target = tmp_path / "m.safetensors"
    result = run(server, "models", "download", "m1", "--to", str(target))
    assert result.exit_code == 0
    assert result.stdout == f"{target}\n"
    assert target.read_bytes() == b"weights"


def test_on_a_terminal_a_running_cycle_is_a_bar(
    cycle_json: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=120)
    monkeypatch.setattr(progress, "stderr", lambda: screen)
    with progress.job_bar("cycle 1") as show:
        show(
            Cycle.model_validate(
                {**cycle_json, "state": "running", "stage": "score", "progress": 0.5}
            )
        )
    assert isinstance(screen.file, io.StringIO)
    drawn = screen.file.getvalue()
    assert "50%" in drawn
    assert "running, score" in drawn


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "-"),
        (True, "yes"),
        (0.123456, "0.1235"),
        (["a", "b"], "a, b"),
        ([], "-"),
        (7, "7"),
    ],
)
def test_values_are_shown_as_words(value: object, words: str) -> None:
    assert output.as_words(value) == words


def event_json(seq: int, state: str, **changes: Any) -> dict[str, Any]:
    return {
        "cycle": "c1",
        "seq": seq,
        "kind": "progress" if state == "running" else "state",
        "at": "2026-11-23T08:00:00Z",
        "state": state,
        "progress": seq / 4,
        "stage": None,
        "message": "",
        "error": None,
        "attempts": 0,
        "worker": None,
        "cancel_requested": False,
        **changes,
    }


def stream_of(*events: dict[str, Any]) -> httpx2.Response:
    content = "".join(
        f"event: {event['kind']}\ndata: {json.dumps(event)}\nid: {event['seq']}\n\n"
        for event in events
    )
    return httpx2.Response(
        200, content=content.encode(), headers={"Content-Type": "text/event-stream"}
    )


RUNNING = {
    "stage": "train",
    "message": "label 1/2, step 3/9, loss 0.5",
    "losses": {"total": 0.5, "box": 0.25},
    "seconds_left": 5460.0,
}


def test_watching_a_cycle_logs_what_happens_and_prints_the_end(cycle_json: dict[str, Any]) -> None:
    events = (
        event_json(1, "queued"),
        event_json(2, "running", **RUNNING),
        event_json(4, "succeeded"),
    )
    server = Server(
        {
            "GET /cycles/c1": [cycle_json, {**cycle_json, "state": "succeeded"}],
            "GET /cycles/c1/events": stream_of(*events),
        }
    )
    result = run(server, "cycles", "watch", "c1")
    assert result.exit_code == 0
    assert result.stderr.splitlines() == [
        "cycle 1: 25% queued",
        "cycle 1: 50% running, train, label 1/2, step 3/9, loss 0.5, 1 h 31 min left",
        "cycle 1: 100% succeeded",
    ]
    assert "succeeded" in result.stdout


def test_watching_as_json_prints_an_event_a_line_and_a_failure_is_exit_code_3(
    cycle_json: dict[str, Any],
) -> None:
    events = event_json(1, "running", **RUNNING), event_json(2, "failed", error="no room")
    server = Server(
        {
            "GET /cycles/c1": [cycle_json, {**cycle_json, "state": "failed", "error": "no room"}],
            "GET /cycles/c1/events": stream_of(*events),
        }
    )
    result = run(server, "cycles", "watch", "c1", "--json")
    assert result.exit_code == ExitCode.JOB_FAILED
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["state"] for line in lines] == ["running", "failed"]
    assert lines[0]["losses"] == {"total": 0.5, "box": 0.25}
    assert "no room" in result.stderr


def test_an_interrupted_watch_leaves_the_cycle_running_and_says_so(
    cycle_json: dict[str, Any],
) -> None:
    server = Server({"GET /cycles/c1": cycle_json})

    def interrupted(request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith("/events"):
            raise KeyboardInterrupt
        return server(request)

    with httpx2.Client(
        base_url="http://server.test", transport=httpx2.MockTransport(interrupted)
    ) as http:
        result = CliRunner().invoke(app, ["cycles", "watch", "c1"], obj=Session(http_client=http))
    assert result.exit_code == ExitCode.INTERRUPTED
    assert "the cycle goes on; `miaod cycles cancel c1` stops it" in result.stderr
    assert [request.method for request in server.requests] == ["GET"]


def test_on_a_terminal_a_watched_cycle_is_a_bar_with_its_losses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=120)
    monkeypatch.setattr(progress, "stderr", lambda: screen)
    with progress.watch_bar("cycle 1") as show:
        show(CycleEvent.model_validate(event_json(2, "running", **RUNNING)))
    shown = cast(io.StringIO, screen.file).getvalue()
    assert "label 1/2, step 3/9, loss 0.5, 1 h 31 min left" in shown
    assert "total 0.5, box 0.25" in shown


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, ""),
        (0.4, "0 s left"),
        (59.0, "59 s left"),
        (61.0, "1 min left"),
        (3599.0, "1 h 0 min left"),
        (9000.0, "2 h 30 min left"),
    ],
)
def test_the_time_left_is_told_as_people_say_it(seconds: float | None, words: str) -> None:
    event = CycleEvent.model_validate(event_json(1, "running", seconds_left=seconds))
    assert progress.time_left(event) == words
