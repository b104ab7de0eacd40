"""Every SQL text that stands in this repository's tests, benchmarks and documents."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]
_FIRST = re.compile(
    r"\s*(?:--[^\n]*\n\s*|/\*.*?\*/\s*|\()*(?:abort|alter|analy[sz]e|begin|call|checkpoint|close|cluster|comment|commit|"
    r"copy|create|deallocate|declare|delete|discard|do|drop|end|execute|explain|fetch|grant|import|insert|listen|load|"
    r"lock|merge|move|notify|prepare|reassign|refresh|reindex|release|reset|revoke|rollback|savepoint|security|select|"
    r"set|show|start|table|truncate|unlisten|update|vacuum|values|with)\b",
    re.IGNORECASE | re.DOTALL,
)
_STRANGE = re.compile("[\0\ud800-\udfff]")
_FENCED = re.compile(r"```sql\n(.*?)```", re.DOTALL)


@cache
def harvested() -> tuple[str, ...]:
    """All texts that begin as a statement does, each once. Not all of them are SQL."""
    found = [*_corpus(), *_plans(), *_in_python(), *_in_documents()]
    return tuple(dict.fromkeys(text for text in found if _FIRST.match(text) and not _STRANGE.search(text)))


def _corpus() -> Iterator[str]:
    for path in sorted((ROOT / "tests").rglob("*.sql")):
        text = path.read_text("utf-8")
        yield text
        yield from (part.strip() for part in text.split("\n\n"))


def _plans() -> Iterator[str]:
    for path in sorted((ROOT / "tests").rglob("plans/*.txt")):
        for line in path.read_text("utf-8").splitlines():
            yield line.partition(" ")[2].strip().partition("⇐")[0].replace("␤", "\n")


def _in_python() -> Iterator[str]:
    for folder in ("tests", "benchmarks", "proxy", "cache"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_bytes())):
                if not isinstance(node, ast.Constant):
                    continue
                if isinstance(node.value, str):
                    yield node.value
                elif isinstance(node.value, bytes):
                    yield node.value.decode("utf-8", "replace")


def _in_documents() -> Iterator[str]:
    for path in (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))):
        yield from _FENCED.findall(path.read_text("utf-8"))
