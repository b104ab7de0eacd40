"""The command line: the commands and their flags. What a command does is in a module of its own, which is imported when
the command runs.

Exit status: 0 done; 1 the command found something wrong, or could not do its work; 2 the command line or the
configuration is wrong.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from proxy.config import units
from proxy.config.load import DEFAULT_PATH, Config, ConfigError, load
from proxy.config.os_errors import reason_of
from proxy.version import version

if TYPE_CHECKING:
    from collections.abc import Mapping

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    # Pretty tracebacks show local variables, which may hold rows and passwords.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ConfigPath = Annotated[
    Path,
    typer.Option("--config", "-c", envvar="ROWTAP_CONFIG", metavar="FILE", help="The configuration file."),
]
Dsn = Annotated[
    str | None,
    typer.Option(
        metavar="DSN",
        help="Log in to PostgreSQL with this libpq connection string; host, port and database default to the"
        " configured ones. PGUSER, PGPASSWORD and the like work too.",
    ),
]
Tables = Annotated[
    list[str] | None,
    typer.Option("--table", metavar="NAME", help="Only this table, as configured. May be given several times."),
]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rowtap {version()}")
        raise typer.Exit


@app.callback()
def rowtap(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A PostgreSQL proxy that taps rows off the wire into Redis."""


def _load_or_exit(path: Path, overrides: Mapping[str, str] | None = None) -> Config:
    """The configuration. One that is refused ends the command: a line on standard error for each fault, status 2."""
    try:
        return load(path, overrides)
    except ConfigError as error:
        for message in error.messages:
            typer.echo(f"error: {message}", err=True)
        raise typer.Exit(2) from None


@app.command("serve")
def serve_command(
    path: ConfigPath = DEFAULT_PATH,
    listen: Annotated[
        list[str] | None, typer.Option(metavar="ADDRESS:PORT", help="Listen here. May be given several times.")
    ] = None,
    workers: Annotated[str | None, typer.Option(metavar="N|auto", help="Processes sharing the port.")] = None,
    host: Annotated[str | None, typer.Option(metavar="HOST", help="PostgreSQL's host or socket directory.")] = None,
    port: Annotated[str | None, typer.Option(metavar="PORT", help="PostgreSQL's port.")] = None,
    redis: Annotated[str | None, typer.Option(metavar="URL", help="Redis.")] = None,
    admin: Annotated[str | None, typer.Option(metavar="ADDRESS:PORT", help="The admin endpoint.")] = None,
    log_level: Annotated[str | None, typer.Option(metavar="LEVEL", help="debug, info, warning or error.")] = None,
    log_format: Annotated[str | None, typer.Option(metavar="FORMAT", help="text or json.")] = None,
    worker: Annotated[str | None, typer.Option(hidden=True, help="The slot of a supervisor's worker.")] = None,
) -> None:
    """Run the proxy until SIGTERM."""
    flags = {
        "proxy.listen": _as_toml(listen),
        "proxy.workers": workers,
        "postgres.host": host,
        "postgres.port": port,
        "redis.url": redis,
        "admin.listen": admin,
        "log.level": log_level,
        "log.format": log_format,
    }
    overrides = {name: value for name, value in flags.items() if value is not None}
    config = _load_or_exit(path, overrides)
    from proxy import logs
    from proxy.process import serve

    logs.configure(config.log)
    if worker is None:
        for warning in config.warnings():
            logs.get().warning("configuration is accepted with a warning", warning=warning, file=str(path))
    raise typer.Exit(serve.run(config, arguments=sys.argv[1:], slot=worker))


def _as_toml(addresses: list[str] | None) -> str | None:
    """The values of a flag that may be given several times: one as it is, several as a TOML list."""
    if not addresses:
        return None
    return addresses[0] if len(addresses) == 1 else f"[{', '.join(repr(address) for address in addresses)}]"


@app.command("demo")
def demo_command(
    keep: Annotated[bool, typer.Option("--keep", help="Stay up and print how to connect.")] = False,
) -> None:
    """Show what Rowtap does: an embedded PostgreSQL and Valkey, the proxy between them, and a short session."""
    try:
        from proxy.demo import session
    except ModuleNotFoundError as error:
        raise _missing(error, "demo") from None
    raise typer.Exit(session.run(keep=keep))


@app.command("check")
def check_command(path: ConfigPath = DEFAULT_PATH, dsn: Dsn = None) -> None:
    """Validate the configuration, reach PostgreSQL and Redis, and say what is wrong.

    With a login (--dsn, or PGUSER in the environment) the configured tables, columns and keys are checked too.
    """
    from proxy.commands import check

    raise typer.Exit(check.run(_load_or_exit(path), dsn))


@app.command("explain")
def explain_command(
    statements: Annotated[
        list[str] | None, typer.Argument(metavar="[SQL]...", show_default=False, help="Statements, each in quotes.")
    ] = None,
    path: ConfigPath = DEFAULT_PATH,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", metavar="FILE", help='Read statements from here; "-": standard input.'),
    ] = None,
    dsn: Dsn = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Ask no database; assume that each configured table has text columns.")
    ] = False,
    database: Annotated[
        str | None, typer.Option(metavar="NAME", help="The database of the statements, if not [postgres] database.")
    ] = None,
    search_path: Annotated[
        str, typer.Option(metavar="SCHEMAS", help="The session's search_path, separated by commas.")
    ] = "public",
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array.")] = False,
) -> None:
    """Say what statements would do to Redis, and why.

    Statements come from the command line, a file, or standard input. The tables are looked up with --dsn, or PGUSER and
    the like from the environment; without a login they are assumed to be as simple as the configuration allows.
    """
    config = _load_or_exit(path)
    from proxy.commands import explain

    try:
        texts = explain.read(statements or [], file, sys.stdin.buffer)
    except OSError as error:
        typer.echo(f"error: {file}: cannot be read: {reason_of(error)}", err=True)
        raise typer.Exit(2) from None
    if not any(text.strip() for text in texts):
        typer.echo('error: nothing to explain: rowtap explain "SELECT …"', err=True)
        raise typer.Exit(2)
    raise typer.Exit(
        explain.run(
            config,
            texts,
            dsn=dsn,
            offline=offline,
            database=database,
            search_path=tuple(schema.strip() for schema in search_path.split(",") if schema.strip()),
            as_json=as_json,
        )
    )


@app.command("warm")
def warm_command(
    path: ConfigPath = DEFAULT_PATH,
    dsn: Dsn = None,
    table: Tables = None,
    state: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write here how far it came, to go on after an interruption."),
    ] = None,
    from_key: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="Begin at this key. With several key columns give it once for each."),
    ] = None,
) -> None:
    """Read tables through the proxy in key order, so that Redis holds their keys before an application reads them.

    Connects to where the proxy listens, unless --dsn names another host and port. Prints how many keys are present.
    """
    config = _load_or_exit(path)
    try:
        from proxy.commands import warm
    except ModuleNotFoundError as error:
        raise _missing(error, "tools") from None
    raise typer.Exit(warm.run(config, dsn, table or [], from_key=from_key or [], state_path=state))


@app.command("verify")
def verify_command(
    path: ConfigPath = DEFAULT_PATH,
    dsn: Dsn = None,
    table: Tables = None,
    settle: Annotated[
        str, typer.Option(metavar="DURATION", help="Time between two checks of a key that seems stale.")
    ] = "500ms",
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Compare Redis with PostgreSQL, key by key: equal, absent, stale.

    Connects straight to PostgreSQL. Exit status: 0 nothing is stale, 1 something is, 2 not all could be compared.
    """
    config = _load_or_exit(path)
    try:
        seconds = units.seconds(settle)
    except ValueError as error:
        typer.echo(f"error: --settle {error}", err=True)
        raise typer.Exit(2) from None
    try:
        from proxy.commands import verify
    except ModuleNotFoundError as error:
        raise _missing(error, "tools") from None
    raise typer.Exit(verify.run(config, dsn, table or [], as_json=as_json, settle=seconds))


def _missing(error: ModuleNotFoundError, extra: str) -> Exception:
    """The end of the command, after naming what to install. The error of a module of Rowtap itself stays as it is."""
    if error.name is None or error.name.partition(".")[0] in {"proxy", "cache", "protocol"}:
        return error
    typer.echo(f"error: {error.name} is not installed: pip install 'rowtap[{extra}]'", err=True)
    return typer.Exit(2)
