"""`miaod keys` and `miaod audit`."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from miaod_client._cli.output import note, print_json, print_list, print_record
from miaod_client._cli.session import (
    UUID,
    JsonOption,
    LimitOption,
    NoSuchKeyError,
    client_of,
    make_group,
    project_id,
)
from miaod_client._client import Client
from miaod_client._types import Role

app = make_group("Who may use the service; for administrators.")
audit_app = make_group("Who did what; for administrators.")

KeyArgument = Annotated[str, typer.Argument(metavar="KEY", help="The key's id or name.")]
ProjectsOption = Annotated[
    list[str] | None,
    typer.Option("--project", "-p", help="A project that it is for: id or name. Repeatable."),
]
AllOption = Annotated[bool, typer.Option("--all-projects", help="It is for all projects.")]


@app.command()
def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Of the person or program that gets it.")],
    role: Annotated[Role, typer.Option(help="What it may do.")],
    project: ProjectsOption = None,
    all_projects: AllOption = False,
    days: Annotated[
        float | None, typer.Option(min=0, help="It ends after so many days; default never.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key and print it, this once."""
    if role != "admin" and not project and not all_projects:
        raise ValueError("say which projects the key is for: --project, or --all-projects")
    with client_of(ctx) as client:
        made = client.keys.create(
            name=name,
            role=role,
            projects=[project_id(client, each) for each in project] if project else None,
            all_projects=all_projects,
            expires_at=None if days is None else datetime.now(UTC) + timedelta(days=days),
        )
    if as_json:
        print_json(made)
        return
    typer.echo(made.key)
    note("nobody can show it again: give it to its owner, who sets MIAOD_API_KEY to it")


@app.command("list")
def list_(ctx: typer.Context, limit: LimitOption = 100, as_json: JsonOption = False) -> None:
    """List keys, revoked ones as well, newest first."""
    with client_of(ctx) as client:
        print_list(
            client.keys.list(),
            {
                "ID": lambda key: key.id,
                "NAME": lambda key: key.name,
                "ROLE": lambda key: key.role,
                "PROJECTS": lambda key: "all" if key.projects is None else key.projects,
                "KEY": lambda key: f"{key.prefix}…",
                "LAST USED": lambda key: key.last_used_at,
                "EXPIRES": lambda key: key.expires_at,
                "REVOKED": lambda key: key.revoked_at,
            },
            as_json=as_json,
            limit=limit,
            empty="no keys yet: `miaod keys create` makes one",
        )


@app.command()
def show(ctx: typer.Context, key: KeyArgument, as_json: JsonOption = False) -> None:
    """Show what is known of a key."""
    with client_of(ctx) as client:
        print_record(client.keys.get(key_id(client, key)), as_json=as_json)


@app.command()
def update(
    ctx: typer.Context,
    key: KeyArgument,
    name: Annotated[str | None, typer.Option(help="Its new name.")] = None,
    project: ProjectsOption = None,
    all_projects: AllOption = False,
) -> None:
    """Rename a key, or give it these projects instead of those it has."""
    with client_of(ctx) as client:
        client.keys.update(
            key_id(client, key),
            name=name,
            projects=[project_id(client, each) for each in project] if project else None,
            all_projects=all_projects,
        )
    note("changed")


@app.command()
def revoke(ctx: typer.Context, key: KeyArgument) -> None:
    """End a key at once."""
    with client_of(ctx) as client:
        client.keys.revoke(key_id(client, key))
    note("revoked")


def whoami(ctx: typer.Context, as_json: JsonOption = False) -> None:
    """Say who your key is for the server."""
    with client_of(ctx) as client:
        print_record(client.session.get(), as_json=as_json)


@audit_app.command("list")
def list_audit(
    ctx: typer.Context,
    project: Annotated[
        str | None, typer.Option("--project", "-p", help="Only in this one: id or name.")
    ] = None,
    actor: Annotated[str | None, typer.Option(help="Only what this one did.")] = None,
    action: Annotated[str | None, typer.Option(help="Only this, as project_created.")] = None,
    limit: LimitOption = 100,
    as_json: JsonOption = False,
) -> None:
    """List who did what, newest first."""
    with client_of(ctx) as client:
        print_list(
            client.audit.list(
                project=project_id(client, project) if project else None,
                actor=actor,
                action=action,
            ),
            {
                "AT": lambda entry: entry.at,
                "ACTOR": lambda entry: entry.actor,
                "ACTION": lambda entry: entry.action,
                "PROJECT": lambda entry: entry.project,
                "OBJECT": lambda entry: entry.object,
                "DETAIL": lambda entry: ", ".join(
                    f"{name} {value}" for name, value in entry.detail.items()
                ),
            },
            as_json=as_json,
            limit=limit,
            empty="nothing was done yet",
        )


def key_id(client: Client, key: str) -> str:
    """The id of a key that is named by its id or by its name, which no two live keys share.

    Raises:
        NoSuchKeyError: it looks like a name, and no live key has it.
    """
    if UUID.fullmatch(key):
        return key
    for found in client.keys.list():
        if found.name == key and found.revoked_at is None:
            return found.id
    raise NoSuchKeyError(f"there is no live key named {key!r}; `miaod keys list` shows all")
