"""What silences a tool (noqa, type: ignore, pragma) names the rule and has its reason beside it."""

import itertools
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = [
    path.relative_to(ROOT)
    for folder in ("protocol", "cache", "proxy", "benchmarks", "tests")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
SUPPRESSION = re.compile(r"#\s*(?:noqa|type:\s*ignore|pragma:?\s*no)\b", re.IGNORECASE)
REASONED = re.compile(
    r"# (?:noqa: [A-Z]+\d+(?:, [A-Z]+\d+)*|type: ignore\[[a-z-]+(?:, [a-z-]+)*\]|pragma: no (?:cover|branch))"
    r"\s+(?:[-—#]\s*)?\w.{3,}"
)
"""One suppression, then its reason; coverage, ruff and mypy read no further than the first part."""


def unreasoned(comment):
    """The suppressions in a comment that lack a rule or a reason. Several stand side by side, each with its own."""
    starts = [match.start() for match in SUPPRESSION.finditer(comment)]
    parts = [comment[start:end].rstrip() for start, end in itertools.pairwise([*starts, None])]
    return [part for part in parts if not REASONED.fullmatch(part)]


def comments(path):
    """(line, text) of each comment of a file; what a string says is none."""
    with tokenize.open(ROOT / path) as file:
        for token in tokenize.generate_tokens(file.readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string


def test_every_suppression_names_its_rule_and_has_its_reason():
    found = [
        f"{path}:{line}: {part}" for path in SOURCES for line, comment in comments(path) for part in unreasoned(comment)
    ]
    assert found == []


@pytest.mark.parametrize(
    "comment",
    [
        "# noqa: S108",
        "# noqa - it is fine",
        "# type: ignore  # Django has no types",
        "# type: ignore[misc]",
        "# pragma: no cover",
        "# pragma: no branch -",
        "# noqa: S603 - our own file  # type: ignore[misc]",
    ],
)
def test_suppression_without_rule_or_reason_is_found(comment):
    assert len(unreasoned(comment)) == 1


@pytest.mark.parametrize(
    "comment",
    [
        "# noqa: S108 - a directory every account may use",
        "# noqa: A002  PostgreSQL's word",
        "# noqa: S603, S607 — found by its name",
        "# type: ignore[misc]  # Django has no types",
        "# pragma: no cover — only macOS lacks it",
        "# pragma: no branch - the loop always ends by return",
        "# noqa: S603 - our own file  # type: ignore[misc]  # mypy knows no better",
        "# No pragma here.",
    ],
)
def test_suppression_with_rule_and_reason_passes(comment):
    assert unreasoned(comment) == []
