"""`python -m server` serves; `… migrate` updates the database; `… keys` makes and revokes keys;
`… openapi` writes the document.

`… backup FOLDER` and `… restore FOLDER` save and bring back database and blobs; `… verify` checks
that every blob that the database names is there and whole.
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import sys
import tempfile
from pathlib import Path

import structlog
import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError
from pydantic_settings import SettingsError
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from server import key_commands, logs, origins
from server.doorkeeper import Doorkeeper
from server.errors import ServiceError
from server.main import create_app
from server.protocol import CommonFormProtocol
from server.services import keys, training
from server.settings import Settings
from server.store.backup import BackupRefused, back_up, restore, verify
from server.store.blobs import BlobStore
from server.store.database import (
    WrongRevision,
    check_revision,
    make_engine,
    session_factory,
    upgrade,
)

log = structlog.get_logger("server")

OPENAPI_FILE = Path("docs/openapi.json")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m server", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("migrate", help="bring the database's schema up to this release")
    key_commands.add_to(commands)
    openapi = commands.add_parser("openapi", help="write the OpenAPI document")
    openapi.add_argument("path", nargs="?", type=Path, default=OPENAPI_FILE)
    backup = commands.add_parser("backup", help="add a backup to a folder, while the service runs")
    backup.add_argument("folder", type=Path)
    backup.add_argument("--keep", type=_at_least_one, help="remove all but the newest so many")
    restore = commands.add_parser("restore", help="bring a backup into an empty database")
    restore.add_argument("folder", type=Path)
    restore.add_argument("--at", metavar="NAME", help="which backup; the newest unless given")
    commands.add_parser("verify", help="check every blob that the database names")
    chosen = parser.parse_args(arguments)
    logs.configure()
    if chosen.command == "openapi":
        chosen.path.write_text(openapi_text())
        return 0
    try:
        settings = Settings()
    except ValidationError as error:
        for problem in error.errors():
            field = "_".join(str(part) for part in problem["loc"])
            _complain(f"MIAOD_{field.upper()}: {problem['msg']}")
        return 1
    except SettingsError as error:
        _complain(f"a setting cannot be read: {error}: {error.__cause__}")
        return 1
    try:
        match chosen.command:
            case "migrate":
                return _migrate(settings)
            case "keys":
                return _keys(chosen, settings)
            case "backup" | "restore" | "verify":
                return _keep(settings, chosen)
            case _:
                return _serve(settings)
    except (WrongRevision, BackupRefused, ValueError) as error:
        _complain(str(error))
    except ServiceError as error:
        _complain(error.detail)
    except SQLAlchemyError as error:
        _complain(f"the database cannot be used: {error}")
    except OSError as error:
        folders = {settings.data_dir, getattr(chosen, "folder", settings.data_dir)}
        _complain(f"{' or '.join(sorted(map(str, folders)))} cannot be used: {error}")
    return 1


def openapi_text() -> str:
    """The OpenAPI document as it is checked in: sorted as declared, one line a leaf."""
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(Settings(data_dir=Path(folder), database_url=None, admin_key=None))
        return json.dumps(app.openapi(), indent=1, ensure_ascii=False) + "\n"


def _migrate(settings: Settings) -> int:
    engine = make_engine(settings.resolved_database_url)
    upgrade(engine)
    engine.dispose()
    _say("the database is up to date")
    return 0


def _keep(settings: Settings, chosen: argparse.Namespace) -> int:
    """Backup, restore, verify; 1 if a blob is missing or damaged."""
    engine = make_engine(settings.resolved_database_url)
    blobs = BlobStore(settings.data_dir)
    match chosen.command:
        case "backup":
            report = back_up(engine, blobs, chosen.folder, chosen.keep)
            _say(
                f"backup {report.name}: {report.rows} rows, {report.blobs} blobs named, "
                f"{report.copied} copied"
            )
        case "restore":
            report = restore(engine, blobs, chosen.folder, chosen.at)
            _say(
                f"restored {report.name}: {report.rows} rows, {report.blobs} blobs named, "
                f"{report.copied} copied"
            )
        case _:
            report = verify(engine, blobs)
            _say(f"{report.blobs} blobs named, {len(report.problems)} missing or damaged")
    engine.dispose()
    for problem in report.problems:
        _complain(problem)
    return 1 if report.problems else 0


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of backups: at least 1")
    return int(text)


def _keys(chosen: argparse.Namespace, settings: Settings) -> int:
    engine = make_engine(settings.resolved_database_url)
    try:
        key_commands.run(chosen, settings, engine, _say)
    finally:
        engine.dispose()
    return 0


def _serve(settings: Settings) -> int:
    if settings.default_preset not in training.presets():
        raise ValueError(
            f"MIAOD_DEFAULT_PRESET: there is no preset {settings.default_preset!r}, only "
            f"{', '.join(training.presets())}"
        )
    engine = make_engine(settings.resolved_database_url)
    check_revision(engine)
    if settings.admin_key is None and not origins.is_loopback(settings.host):
        _make_first_key(engine)
    engine.dispose()
    app = create_app(settings, background=True)
    config = uvicorn.Config(
        app,
        http=CommonFormProtocol,
        ws="none",
        host=settings.host,
        port=settings.port,
        log_config=None,  # our own
        access_log=False,
        server_header=False,
        forwarded_allow_ips=settings.trusted_proxies,
        timeout_graceful_shutdown=10,
    )
    # uvicorn stops in good order on these and then sends them to itself once more, so that its
    # caller dies of them; to us they mean that the work is done.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    _Server(config, app).run()
    return 0


def _make_first_key(engine: Engine) -> None:
    """Make the first admin key and show it. Only here, on standard output: logs are kept."""
    with session_factory(engine).begin() as session:
        key = keys.ensure_admin(session)
    if key is not None:
        _say(
            f"The first admin key, shown this once: {key}\n"
            "Programs send it as `Authorization: Bearer KEY` (SDK and command line take "
            "MIAOD_API_KEY); pages sign in with it. `miaod keys create` makes keys for others."
        )


class _Server(uvicorn.Server):
    """Tells its address once it answers there, also when the port was left to the system (0).

    When it stops, event streams end first: they would outlast any patience with open requests.
    """

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.state.context.feed.stop()
        await super().shutdown(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
            _say(f"MI-AOD service on {url} (documentation at {url}/docs)")
            doorkeeper: Doorkeeper = self._app.state.doorkeeper
            if doorkeeper.is_open():
                _say(
                    "It has no key yet and is open to the user of this machine, and to nobody "
                    "else; `python -m server keys create` makes the first one."
                )


def _say(sentence: str) -> None:
    sys.stdout.write(sentence + "\n")
    sys.stdout.flush()


def _complain(sentence: str) -> None:
    log.error(sentence, action="cannot_start")


if __name__ == "__main__":
    sys.exit(main())
