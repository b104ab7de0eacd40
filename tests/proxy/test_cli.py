"""The command line as a shell sees it: status, standard output, standard error."""

import importlib.metadata
import re
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from proxy import cli
from proxy.cli import app
from tests.fix_proxy import ROOT

runner = CliRunner()


@pytest.fixture
def served(monkeypatch):
    """What `serve` would run, instead of running it: a list of (configuration, keyword arguments)."""
    calls = []

    def serve(settings, **keywords):
        calls.append((settings, keywords))
        return 0

    monkeypatch.setattr("proxy.process.serve.run", serve)
    monkeypatch.setattr("proxy.logs.configure", lambda _settings: None)
    return calls


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text('[postgres]\ndatabase = "app"\nport = 1\n[[table]]\nname = "t"\nkey = "k"\nvalue = "v"\n')
    return str(path)


def test_module_prints_the_installed_version(rowtap_command):
    done = rowtap_command("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"rowtap {importlib.metadata.version('rowtap')}\n"


@pytest.mark.parametrize(
    "arguments", [["--help"], *([command, "-h"] for command in ("serve", "demo", "check", "explain"))]
)
def test_help_is_status_0(arguments):
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0
    assert "Usage: " in result.output


def test_every_command_has_a_help_text():
    for command in app.registered_commands:
        assert command.callback.__doc__


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["serve", "--nonsense"], ["serve", "extra"], ["explain", "--file"]]
)
def test_wrong_command_line_is_status_2(arguments):
    assert runner.invoke(app, arguments).exit_code == 2


@pytest.mark.parametrize("command", [["serve"], ["check"], ["explain", "SELECT 1"]])
def test_refused_configuration_is_status_2_and_a_line_for_each_fault(command, tmp_path):
    path = tmp_path / "wrong.toml"
    path.write_text("[proxy]\nwrokers = 1\n[log]\nlevel = 5\n")
    result = runner.invoke(app, [*command, "--config", str(path)])
    assert result.exit_code == 2
    assert result.stdout == ""
    first, second = result.stderr.splitlines()
    assert first == f'error: {path}:2: proxy.wrokers: no such key; did you mean "workers"?'
    assert second.startswith(f"error: {path}:4: log.level: must be ")


def test_configuration_file_is_taken_from_the_environment(served, file, monkeypatch):
    monkeypatch.setenv("ROWTAP_CONFIG", file)
    assert runner.invoke(app, ["serve"]).exit_code == 0
    ((settings, _),) = served
    assert settings.postgres.port == 1


def test_absent_configuration_file_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = runner.invoke(app, ["serve"])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: config.toml: cannot be read")


def test_flags_take_precedence_over_the_environment(served, file, monkeypatch):
    monkeypatch.setenv("ROWTAP_POSTGRES__PORT", "2")
    monkeypatch.setenv("ROWTAP_PROXY__WORKERS", "2")
    flags = {
        "--listen": "127.0.0.1:1",
        "--port": "3",
        "--host": "/run",
        "--redis": "redis://x/1",
        "--admin": "off",
        "--log-level": "error",
        "--log-format": "json",
    }
    words = [word for pair in flags.items() for word in pair]
    result = runner.invoke(app, ["serve", "--config", file, *words, "--listen", "127.0.0.1:2"])
    assert result.exit_code == 0, result.output
    ((settings, _),) = served
    assert [address.port for address in settings.proxy.listen] == [1, 2]
    assert (settings.proxy.workers, settings.postgres.port, settings.postgres.host) == (2, 3, "/run")
    assert (settings.redis.url, settings.admin.listen) == ("redis://x/1", None)
    assert (settings.log.level, settings.log.format) == ("error", "json")


def test_exit_status_of_serve_is_that_of_its_run(served, file, monkeypatch):
    monkeypatch.setattr("proxy.process.serve.run", lambda _settings, **_keywords: 1)
    assert runner.invoke(app, ["serve", "--config", file]).exit_code == 1


def test_missing_extra_is_named_and_a_module_of_ours_is_not_taken_for_one():
    error = ModuleNotFoundError("No module named 'psycopg'", name="psycopg")
    with pytest.raises(typer.Exit) as caught:
        raise cli._missing(error, "demo")
    assert caught.value.exit_code == 2
    own = ModuleNotFoundError("No module named 'proxy.nothing'", name="proxy.nothing")
    assert cli._missing(own, "demo") is own


def test_no_argument_prints_the_help():
    result = runner.invoke(app, [])
    assert re.search(r"serve .*\n(.*\n)*.*explain ", result.output)


@pytest.mark.parametrize("command", ["warm", "verify"])
def test_command_that_needs_psycopg_names_the_extra_without_it(file, command):
    script = "import sys; sys.modules['psycopg'] = None; from proxy.__main__ import main; main()"
    arguments = [sys.executable, "-c", script, command, "--config", file, "--dsn", "user=me"]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: psycopg is not installed: pip install 'rowtap[tools]'\n"
