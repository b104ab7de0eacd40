"""Flags, environment and ``config.toml`` become one frozen ``Config``.

A flag takes precedence over the environment, the environment over the file, the file over the default. All faults are
reported at once, a line for each, which says where the value is and what would be right.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
import typing
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, PrivateAttr, TypeAdapter, ValidationError

from proxy.config import sections
from proxy.config.lines import Lines
from proxy.config.os_errors import reason_of
from proxy.config.table_rules import RuleError, build_rules

if typing.TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

    from cache.rules import TableRule

ENVIRONMENT_PREFIX = "ROWTAP_"
DEFAULT_PATH = Path("config.toml")

Location = tuple[str | int, ...]


class ConfigError(Exception):
    """The configuration cannot be used; ``messages`` has a line for each fault."""

    def __init__(self, messages: list[str]) -> None:
        super().__init__("\n".join(messages))
        self.messages = messages


class Config(sections.Section):
    """A whole, checked configuration. Immutable: a reload makes a new one."""

    proxy: sections.ProxySection = sections.ProxySection()
    postgres: sections.PostgresSection = sections.PostgresSection()
    redis: sections.RedisSection = sections.RedisSection()
    cache: sections.CacheSection = sections.CacheSection()
    admin: sections.AdminSection = sections.AdminSection()
    log: sections.LogSection = sections.LogSection()
    table: Annotated[tuple[sections.TableSection, ...], Field(strict=False)] = ()

    _rules: list[TableRule] = PrivateAttr(default_factory=list)
    _warnings: list[str] = PrivateAttr(default_factory=list)
    _path: Path | None = PrivateAttr(default=None)
    _overrides: dict[str, str] = PrivateAttr(default_factory=dict)

    def model_post_init(self, _context: object) -> None:
        """Make the rules once, because they are compared by identity."""
        self._rules, self._warnings = build_rules(self.table, self.postgres.database)

    def rules(self) -> list[TableRule]:
        """One rule for each ``[[table]]`` entry, in the file's order; the same objects at every call."""
        return list(self._rules)

    def warnings(self) -> list[str]:
        """What is allowed and probably not intended, one line each."""
        return list(self._warnings)

    def reload(self) -> Config:
        """The same file read again, under the same flags. Raises ``ConfigError``. This object does not change."""
        return load(self._path, self._overrides)


def load(
    path: Path | None = DEFAULT_PATH,
    overrides: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Config:
    """Read and check a configuration.

    ``path`` None reads no file. ``overrides`` are flags by dotted key ("log.level"), with values as the environment has
    them. ``environment`` defaults to the process's own. Raises ``ConfigError``.
    """
    origins = _ValueOrigins(path)
    tree = origins.read_file()
    environment = os.environ if environment is None else environment
    for name in sorted(environment):
        if location := _environment_location(name):
            origins.override(tree, location, environment[name], origin=name)
    for dotted, text in (overrides or {}).items():
        origins.override(tree, tuple(dotted.split(".")), text, origin="command line")
    directory = path.parent if path is not None else Path()
    try:
        config = Config.model_validate(tree, context={"directory": directory})
    except ValidationError as error:
        raise ConfigError(origins.messages(error)) from None
    except RuleError as error:
        raise ConfigError([origins.prefix(location) + text for location, text in error.problems]) from None
    config._path, config._overrides = path, dict(overrides or {})
    return config


def _environment_location(name: str) -> Location | None:
    """ROWTAP_POSTGRES__HOST is postgres.host. Names without a double underscore are ignored: container platforms set
    such variables themselves (ROWTAP_PORT, ROWTAP_SERVICE_HOST)."""
    if not name.startswith(ENVIRONMENT_PREFIX):
        return None
    rest = name.removeprefix(ENVIRONMENT_PREFIX).lower()
    return tuple(rest.split("__")) if "__" in rest or rest == "table" else None


class _ValueOrigins:
    """Which value comes from which line of the file, which variable or which flag, so that a message can say it."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lines: Lines | None = None
        self._origins: dict[Location, str] = {}

    def read_file(self) -> dict[str, Any]:
        """The file as ``tomllib`` reads it."""
        if self._path is None:
            return {}
        try:
            text = self._path.read_bytes().decode()
            tree = tomllib.loads(text)
        except OSError as error:
            raise ConfigError(
                [f"{self._path}: cannot be read: {reason_of(error)}; name a file with --config"]
            ) from None
        except UnicodeDecodeError as error:
            raise ConfigError([f"{self._path}: is not UTF-8 text (byte {error.start})"]) from None
        except tomllib.TOMLDecodeError as error:
            raise ConfigError([f"{self._path}: is not valid TOML: {error}"]) from None
        except RecursionError:
            raise ConfigError([f"{self._path}: is nested too deeply"]) from None
        self._lines = Lines(text)
        return tree

    def override(self, tree: dict[str, Any], location: Location, text: str, *, origin: str) -> None:
        """Set one value that comes from a variable or a flag, named by ``origin``."""
        self._origins[location] = origin
        section = tree
        for part in location[:-1]:
            inner = section.setdefault(str(part), {})
            if not isinstance(inner, dict):
                return  # The file has a value where a section should be, which is refused anyway.
            section = inner
        section[str(location[-1])] = _as_in_the_file(text, location)

    def prefix(self, location: Location) -> str:
        """Where a key stands, as a message begins: ``config.toml:12: postgres.port: ``."""
        dotted = _dotted(location)
        for length in range(len(location), 0, -1):
            if origin := self._origins.get(location[:length]):
                return f"{origin}: {dotted}: "
        line = self._line(location)
        where = f"{self._path}:{line}: " if line else f"{self._path}: " if self._path else ""
        return f"{where}{dotted}: " if dotted else where

    def messages(self, error: ValidationError) -> list[str]:
        """One line for each fault, in the order of the file."""
        messages: list[tuple[int, str]] = []
        for detail in error.errors():
            location = _without_union_tags(detail["loc"])
            messages.append((self._line(location) or 0, self.prefix(location) + _message(detail, location)))
        return [text for _, text in sorted(messages, key=lambda entry: entry[0])]

    def _line(self, location: Location) -> int | None:
        return self._lines.line_of(location) if self._lines is not None else None


def _dotted(location: Location) -> str:
    """postgres.port, or table[2].key, where the first entry is table[1]."""
    text = ""
    for part in location:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def _annotation(location: Location) -> Any:
    """The declared type at ``location``, or None when there is no such key."""
    annotation: Any = Config
    for part in location:
        model = section_model(annotation)
        if model is None or part not in model.model_fields:
            return None
        field = model.model_fields[str(part)]
        annotation = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    return annotation


def section_model(annotation: Any) -> type[BaseModel] | None:
    """The section behind ``Section``, ``Section | None`` or ``tuple[Section, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in typing.get_args(annotation):
        if (model := section_model(argument)) is not None:
            return model
    return None


def _as_in_the_file(text: str, location: Location) -> Any:
    """The text of a flag or variable as the value that the file would have: text if the key takes text, otherwise read
    as TOML (5, true, ["a", "b"]) or JSON."""
    annotation = _annotation(location)
    if annotation is None:
        return text
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    for read in (lambda: text, lambda: tomllib.loads(f"value = {text}")["value"], lambda: json.loads(text)):
        try:
            value = read()
            if isinstance(value, (list, dict)):
                return value  # The check of the whole configuration finds what is wrong inside it.
            adapter.validate_python(value, strict=True)
        except (ValueError, RecursionError):
            continue
        return value
    return text


def _without_union_tags(location: Location) -> Location:
    """The location without the names of validators that pydantic adds to it."""
    kept: list[str | int] = []
    for part in location:
        if isinstance(part, str) and (part.startswith("function-") or "[" in part):
            break
        kept.append(part)
    return tuple(kept)


_TYPES = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text in quotes",
    "tuple_type": "entries [[table]]",
}


def _message(detail: ErrorDetails, location: Location) -> str:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_key(location)
    if kind == "missing":
        return "is required"
    if kind in _TYPES:
        return f"must be {_TYPES[kind]}, not {_quotable(value, location)}"
    if kind in {"model_type", "model_attributes_type", "dataclass_type"}:
        header = f"[[{_dotted(location[:1])}]]" if location[0] == "table" else f"[{_dotted(location)}]"
        return f"must be a section {header}, not {_quotable(value, location)}"
    if kind == "literal_error":
        choices = context["expected"]
        close = difflib.get_close_matches(str(value), choices.replace("'", "").replace(" or ", ", ").split(", "), n=1)
        hint = f'; did you mean "{close[0]}"?' if close else ""
        return f"must be {choices}, not {_quotable(value, location)}{hint}".replace("'", '"')
    if kind in {"greater_than_equal", "less_than_equal"}:
        bound, word = (context["ge"], "least") if kind == "greater_than_equal" else (context["le"], "most")
        return f"must be at {word} {bound}, not {_quotable(value, location)}"
    return detail["msg"].removeprefix("Value error, ")


def _unknown_key(location: Location) -> str:
    if location[0] == "table" and len(location) > 1 and isinstance(location[1], int):
        siblings = sections.TableSection.model_fields
    else:
        parent = section_model(_annotation(location[:-1])) if len(location) > 1 else Config
        siblings = parent.model_fields if parent is not None else {}
    close = difflib.get_close_matches(str(location[-1]), siblings, n=1, cutoff=0.5)
    what = "section" if len(location) == 1 else "key"
    hint = f'did you mean "{close[0]}"?' if close else f"known here: {', '.join(siblings)}"
    return f"no such {what}; {hint}"


def _quotable(value: Any, location: Location) -> str:
    """The refused value for a message; only its type, if it may be a secret."""
    if location[-1:] in {("url",), ("passphrase",)}:
        return f"a {type(value).__name__}"
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"
