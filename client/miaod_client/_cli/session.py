"""What all commands share: the client, the exit codes, and errors as sentences."""

import re
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Any

import httpx2
import typer
from typer.core import TyperGroup

from miaod_client._cli.output import note
from miaod_client._client import Client
from miaod_client._errors import (
    AuthenticationError,
    ConnectionFailedError,
    JobFailedError,
    MiaodError,
    ServerError,
    WaitTimeoutError,
)

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


class ExitCode(IntEnum):
    """How a command ends, for scripts; `miaod --help` and the README say the same."""

    OK = 0
    REFUSED = 1  # the server refused or could not be reached, or a file here cannot be written
    USAGE = 2  # options or arguments make no sense
    JOB_FAILED = 3  # the cycle or import that was waited for failed or was cancelled
    TIMED_OUT = 4  # it still goes on after --timeout
    PARTLY_REFUSED = 5  # some files or items were refused; the rest is kept
    INTERRUPTED = 130  # Ctrl-C


@dataclass
class Session:
    """The server that a command line talks to.

    Attributes:
        url: of the server; `None` leaves it to the environment.
        api_key: likewise.
        http_client: used instead of one of our own.
    """

    url: str | None = None
    api_key: str | None = None
    http_client: httpx2.Client | None = None

    def client(self) -> Client:
        """A client of that server."""
        return Client(url=self.url, api_key=self.api_key, http_client=self.http_client)


class NoSuchProjectError(MiaodError):
    """No project has the name that was given."""


class NoSuchKeyError(MiaodError):
    """No live key has the name that was given."""


class SentenceGroup(TyperGroup):
    """A group of commands whose errors end as one sentence on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except WaitTimeoutError as error:
            note(str(error), style="red")
            raise typer.Exit(ExitCode.TIMED_OUT) from error
        except JobFailedError as error:
            note(str(error), style="red")
            raise typer.Exit(ExitCode.JOB_FAILED) from error
        except MiaodError as error:
            note(f"{error}{what_to_look_at(error)}", style="red")
            raise typer.Exit(ExitCode.REFUSED) from error
        except FileNotFoundError as error:
            note(file_sentence(error), style="red")
            raise typer.Exit(ExitCode.USAGE) from error
        except ValueError as error:
            note(str(error), style="red")
            raise typer.Exit(ExitCode.USAGE) from error
        except BrokenPipeError:
            raise  # the reader of a pipe has seen enough; the library ends quietly
        except OSError as error:
            note(file_sentence(error), style="red")
            raise typer.Exit(ExitCode.REFUSED) from error
        except KeyboardInterrupt as error:
            note("interrupted", style="red")
            raise typer.Exit(ExitCode.INTERRUPTED) from error


def what_to_look_at(error: MiaodError) -> str:
    """What helps with an error: a request in the server's log, a setting of the command line."""
    if isinstance(error, ServerError) and error.request_id is not None:
        return f" [request {error.request_id}]"
    if isinstance(error, AuthenticationError):
        return "; the key is what --api-key or MIAOD_API_KEY says"
    if type(error) is ConnectionFailedError:
        return "; is the server running, and is this its address (--url or MIAOD_URL)?"
    return ""


def file_sentence(error: OSError) -> str:
    """An error of the operating system, without its number."""
    if error.filename is None or error.strerror is None:
        return str(error)
    return f"{error.filename}: {error.strerror}"


def client_of(ctx: typer.Context) -> Client:
    """The client of this command line."""
    session = ctx.find_root().obj
    assert isinstance(session, Session)
    return session.client()


def project_id(client: Client, project: str) -> str:
    """The id of a project that is named by its id or by its name.

    Raises:
        NoSuchProjectError: it looks like a name, and no project has it.
    """
    if UUID.fullmatch(project):
        return project
    found = client.projects.list(name=project).first()
    if found is None:
        raise NoSuchProjectError(
            f"there is no project named {project!r}; `miaod projects list` shows those there are"
        )
    return found.id


def make_group(help_text: str) -> typer.Typer:
    """A group of commands for one resource."""
    return typer.Typer(help=help_text, no_args_is_help=True)


ProjectOption = Annotated[
    str, typer.Option("--project", "-p", help="The project: its id or its name.")
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON, as the server gives it, for programs.")
]
LimitOption = Annotated[
    int, typer.Option("--limit", "-n", min=0, help="List at most so many; 0 lists all.")
]
TimeoutOption = Annotated[
    float | None,
    typer.Option("--timeout", min=0, help="Give up waiting after so many seconds; it goes on."),
]
