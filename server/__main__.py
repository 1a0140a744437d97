"""`python -m server` serves; `… migrate` updates the database; `… openapi` writes the document."""

from __future__ import annotations

import argparse
import json
import signal
import socket
import sys
import tempfile
from pathlib import Path

import uvicorn
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from server import logs
from server.main import create_app
from server.protocol import CommonFormProtocol
from server.services import training
from server.settings import Settings
from server.store.database import WrongRevision, check_revision, make_engine, upgrade

OPENAPI_FILE = Path("docs/openapi.json")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m server", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("migrate", help="bring the database's schema up to this release")
    openapi = commands.add_parser("openapi", help="write the OpenAPI document")
    openapi.add_argument("path", nargs="?", type=Path, default=OPENAPI_FILE)
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
    try:
        return _migrate(settings) if chosen.command == "migrate" else _serve(settings)
    except (WrongRevision, ValueError) as error:
        _complain(str(error))
    except SQLAlchemyError as error:
        _complain(f"the database cannot be used: {error}")
    except OSError as error:
        _complain(f"the data folder {settings.data_dir} cannot be used: {error}")
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


def _serve(settings: Settings) -> int:
    if settings.default_preset not in training.presets():
        raise ValueError(
            f"MIAOD_DEFAULT_PRESET: there is no preset {settings.default_preset!r}, only "
            f"{', '.join(training.presets())}"
        )
    engine = make_engine(settings.resolved_database_url)
    check_revision(engine)
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
        timeout_graceful_shutdown=10,
    )
    # uvicorn stops in good order on these and then sends them to itself once more, so that its
    # caller dies of them; to us they mean that the work is done.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    _Server(config).run()
    return 0


class _Server(uvicorn.Server):
    """Tells its address once it answers there, also when the port was left to the system (0)."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
            _say(f"MI-AOD service on {url} (documentation at {url}/docs)")


def _say(sentence: str) -> None:
    sys.stdout.write(sentence + "\n")
    sys.stdout.flush()


def _complain(sentence: str) -> None:
    sys.stderr.write(sentence + "\n")


if __name__ == "__main__":
    sys.exit(main())
