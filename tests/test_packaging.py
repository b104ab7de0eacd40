"""What the project ships beside its code: container image, compose file, Makefile, README; checked without a container
engine."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from proxy.config.load import Config, load, section_model
from proxy.config.units import Address

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
PACKAGES = {pattern.removesuffix("*") for pattern in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]}
"""The top-level packages, each with everything below it."""


def instructions():
    """The Dockerfile as (instruction, arguments), without comments and with continued lines joined."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


DOCKERFILE = instructions()


def final_stage():
    last = max(number for number, (name, _) in enumerate(DOCKERFILE) if name == "FROM")
    return DOCKERFILE[last:]


def argument(name):
    (found,) = [text for instruction, text in final_stage() if instruction == name]
    return found


def environment():
    return dict(word.split("=", 1) for word in shlex.split(argument("ENV")))


# -- the image


def test_dockerfile_has_known_instructions_only():
    known = {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
    assert {name for name, _ in DOCKERFILE} <= known


def test_image_is_a_slim_one_with_a_supported_python():
    for name, text in DOCKERFILE:
        if name == "FROM":
            version = re.fullmatch(r"python:3\.(\d+)-slim(?: AS \w+)?", text)
            assert version is not None
            assert 11 <= int(version[1]) <= 14


def test_image_does_not_run_as_root():
    names = [name for name, _ in final_stage()]
    assert argument("USER") not in {"root", "0"}
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert f"--uid {argument('USER')}" in " ".join(text for name, text in final_stage() if name == "RUN")


def test_entry_point_is_rowtap_serve():
    command = yaml.safe_load(argument("ENTRYPOINT")) + yaml.safe_load(argument("CMD"))
    assert command == ["rowtap", "serve"]
    assert "rowtap" in PROJECT["project"]["scripts"]


def test_every_path_the_image_copies_exists_and_every_package_is_copied():
    copied = set()
    for name, text in DOCKERFILE:
        if name == "COPY":
            *sources, _ = text.split()
            copied |= set(sources)
    for source in copied:
        assert (ROOT / source).exists(), source
    assert copied >= {*PACKAGES, "pyproject.toml", "README.md", "config.toml"}


def test_no_copied_path_is_in_dockerignore():
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    kept = {line[1:] for line in lines if line.startswith("!")}
    assert lines[0] == "*"
    for name, text in DOCKERFILE:
        if name == "COPY":
            assert set(text.split()[:-1]) <= kept


def test_image_listens_on_every_address():
    found = load(ROOT / "config.toml", environment=environment())
    assert found.proxy.listen == (Address("", 6432),)
    assert found.admin.listen == Address("", 9432)
    assert argument("EXPOSE").split() == ["6432", "9432"]
    assert environment()["ROWTAP_CONFIG"] == "/etc/rowtap/config.toml"
    assert any(
        text.split() == ["config.toml", "/etc/rowtap/config.toml"] for name, text in final_stage() if name == "COPY"
    )


def test_health_check_of_the_image_requests_healthz():
    options, _, command = argument("HEALTHCHECK").partition("CMD")
    assert {"--interval", "--timeout", "--retries"} <= set(re.findall(r"--[a-z]+(?=[=-])|--[a-z]+", options))
    program, flag, script = yaml.safe_load(command)
    assert (program, flag) == ("python", "-c")
    compile(script, "HEALTHCHECK", "exec")
    assert "http://127.0.0.1:9432/healthz" in script


def test_every_data_file_is_shipped_with_its_package():
    patterns = PROJECT["tool"]["setuptools"]["package-data"]
    shipped = {
        path
        for package, globs in patterns.items()
        for pattern in globs
        for path in ROOT.joinpath(*package.split(".")).glob(pattern)
    }
    found = {
        path
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"}
    }
    assert found == shipped
    assert ROOT / "cache" / "delivery" / "lua" / "apply.lua" in shipped


def test_every_package_is_shipped():
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"benchmarks"} == PACKAGES
    folders = {path.parent for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


# -- the compose file


def test_compose_starts_rowtap_when_its_servers_are_healthy():
    assert set(SERVICES) == {"postgres", "redis", "rowtap"}
    for name in ("postgres", "redis"):
        assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"
        assert SERVICES["rowtap"]["depends_on"][name] == {"condition": "service_healthy"}
    assert SERVICES["rowtap"]["build"] == "."


def test_every_path_compose_mounts_exists():
    for service in SERVICES.values():
        for mount in service.get("volumes", ()):
            source = mount.split(":")[0]
            if source.startswith("."):
                assert (ROOT / source).is_file()
            else:
                assert source in COMPOSE["volumes"]


def test_compose_uses_the_shipped_config_with_its_own_servers():
    given = environment() | SERVICES["rowtap"]["environment"]
    found = load(ROOT / "config.toml", environment=given)
    assert found.postgres.host == "postgres"
    assert found.redis.url == "redis://redis:6379/0"
    assert found.postgres.database == SERVICES["postgres"]["environment"]["POSTGRES_DB"]
    assert "./config.toml:/etc/rowtap/config.toml:ro" in SERVICES["rowtap"]["volumes"]
    published = {mapping.rsplit(":", 1)[1] for mapping in SERVICES["rowtap"]["ports"]}
    assert published == {"6432", "9432"}


def test_compose_waits_longer_than_shutdown_timeout():
    grace = int(SERVICES["rowtap"]["stop_grace_period"].removesuffix("s"))
    assert grace > load(ROOT / "config.toml", environment={}).proxy.shutdown_timeout


def test_shipped_config_captures_a_table_of_the_sample(connect):
    """The SQL runs on a fresh database, and the shipped entry means a table of it."""
    connection = connect()
    connection.execute((ROOT / "docs" / "sample.sql").read_text())
    (rule,) = load(ROOT / "config.toml", environment={}).rules()
    columns = ", ".join((*rule.key, *rule.value))
    assert connection.execute(f"SELECT {columns} FROM {rule.schema}.{rule.table}").fetchall()


# -- the Makefile and CI


def make(*arguments):
    return subprocess.run(
        ["make", *arguments], cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ | {"MAKEFLAGS": ""}
    )


TARGETS = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("target", TARGETS)
def test_make_target_exists_and_is_in_the_help(target):
    assert make("--dry-run", target, "PYTHONS=python3").returncode == 0
    assert f"  make {target} " in make("help").stdout


def test_make_without_a_target_prints_the_help():
    assert make().stdout == make("help").stdout


def test_check_runs_every_gate():
    printed = make("--dry-run", "check", "ARGS=", "ONLY=").stdout
    for command in ("ruff format --check", "ruff check", "mypy", "tests/test_layering.py", "coverage run -m pytest"):
        assert command in printed
    assert re.search(r"coverage report *$", printed, re.MULTILINE), (
        "without options: it fails below what pyproject says"
    )


def test_every_python_has_an_environment_of_its_own():
    running = f"{sys.version_info[0]}.{sys.version_info[1]}{sys.abiflags}"
    assert f".venv-{running}/bin/mypy" in make("--dry-run", "types", f"PYTHON={sys.executable}").stdout
    assert "\n.venv/bin/mypy" in "\n" + make("--dry-run", "types", "PYTHON=").stdout


def test_supported_pythons_are_those_of_ci_and_of_the_matrix():
    classifier = re.compile(r"Programming Language :: Python :: (3\.\d+)")
    supported = [match[1] for text in PROJECT["project"]["classifiers"] if (match := classifier.fullmatch(text))]
    assert PROJECT["project"]["requires-python"] == f">={supported[0]}"
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert job["strategy"]["matrix"]["python"] == supported
    assert [step["run"] for step in job["steps"] if "run" in step] == ["make test PYTHON=python${{ matrix.python }}"]
    (pythons,) = re.findall(r"^PYTHONS \?= (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert pythons.split() == [f"python{version}" for version in supported]


def test_no_dependency_is_listed_twice():
    for group in (PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"].values()):
        names = [re.split(r"[^\w-]", requirement)[0] for requirement in group]
        assert len(names) == len(set(names))


def test_ci_runs_exactly_make_test():
    path = ROOT / ".ci" / "run"
    assert os.access(path, os.X_OK)
    commands = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    assert commands == ["set -euo pipefail", 'cd "$(dirname "$0")/.."', "export CI=true", "exec make test </dev/null"]
    assert subprocess.run(["bash", "-n", path], check=False).returncode == 0


def test_make_install_refuses_an_old_python_with_a_message(tmp_path):
    """One message, and no environment is created."""
    old = tmp_path / "old-python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    for name in ("Makefile", "pyproject.toml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    done = subprocess.run(
        ["make", "install", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "Python 3.11 or newer" in done.stderr
    assert not list(tmp_path.glob(".venv*"))


# -- the README


def commands_of(name):
    """The commands in a document's shell examples, without comments."""
    text = (ROOT / name).read_text()
    blocks = re.findall(r"^```(?:sh|console)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def test_readme_names_the_first_commands():
    commands = commands_of("README.md")
    for expected in (["make", "demo"], ["make", "test"], ["docker", "compose", "up"]):
        assert expected in commands


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "docs/operations.md", "docs/configuration.md"])
def test_every_command_in_the_document_exists(name):
    from proxy.cli import app

    known = {command.name for command in app.registered_commands if command.callback}
    for words in commands_of(name):
        if words[0] == "make":
            assert {word for word in words[1:] if "=" not in word} <= set(TARGETS)
        elif words[0] == "rowtap":
            assert words[1] in known | {"--version"}
        elif words[:2] == ["docker", "compose"] and words[2] == "exec":
            assert words[3] in SERVICES


@pytest.mark.parametrize("name", ["README.md", "docs/configuration.md"])
def test_every_toml_example_is_a_valid_configuration(name):
    text = (ROOT / name).read_text()
    blocks = re.findall(r"^```toml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert blocks
    for block in blocks:
        tree = tomllib.loads(block)
        tree.setdefault("postgres", {}).setdefault("database", "app")
        assert Config.model_validate(tree)


def test_every_configuration_key_is_documented():
    text = (ROOT / "docs" / "configuration.md").read_text()
    for section, field in Config.model_fields.items():
        model = section_model(field.annotation)
        assert model is not None
        for key in model.model_fields:
            assert f"`{key}`" in text or f"[{section}.{key}]" in text, f"{section}.{key}"
