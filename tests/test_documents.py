"""Documents, docstrings and comments: the paths they name exist, links and anchors lead somewhere, docs/architecture.md
names every module, and words that are hard to read stand nowhere."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("protocol", "cache", "proxy")
FOLDERS = (*PACKAGES, "tests", "docs", "benchmarks")
SUFFIXES = {".py", ".pyi", ".lua", ".md", ".txt", ".sql", ".js", ".toml", ".yml", ".cnf", ""}
"""Of the files that are read as text; the last is that of Makefile, Dockerfile and .ci/run."""


def files():
    """Every text file of the project, relative to its root."""
    found = [path for path in ROOT.iterdir() if path.is_file() and not path.name.startswith(".")]
    found += [path for folder in (*FOLDERS, ".ci") for path in (ROOT / folder).rglob("*") if path.is_file()]
    return sorted(path.relative_to(ROOT) for path in found if path.suffix in SUFFIXES)


FILES = files()
DOCUMENTS = [path for path in FILES if path.suffix == ".md"]
MODULES = [path for path in FILES if path.parts[0] in PACKAGES and path.suffix == ".py" and path.name != "__init__.py"]
SCRIPTS = [path for path in FILES if path.parts[0] in PACKAGES and path.suffix == ".lua"]


def text_of(path):
    return (ROOT / path).read_text(errors="replace")


# -- paths

PATH = re.compile(rf"(?<![\w./<>{{}}-])(?:{'|'.join(FOLDERS)})/[\w./*-]*[\w*]")
"""A path from the root of the project; `*` stands for any part of a name."""


def prose_of(path):
    """What may name a path: a whole document, or the strings and comments of a Python file."""
    if path.suffix != ".py":
        return text_of(path)
    kinds = {tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    tokens = tokenize.generate_tokens(io.StringIO(text_of(path)).readline)
    return "\n".join(token.string for token in tokens if token.type in kinds)


def exists(name):
    return any(ROOT.glob(name)) if "*" in name else (ROOT / name).exists()


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_path_named_in_the_file_exists(path):
    missing = {name for name in PATH.findall(prose_of(path)) if not exists(name)}
    assert missing == set()


def test_architecture_names_every_module():
    text = text_of(Path("docs/architecture.md"))
    missing = [path.as_posix() for path in [*MODULES, *SCRIPTS] if f"`{path.as_posix()}`" not in text]
    assert missing == []


def test_every_test_named_in_a_document_exists():
    functions = set()
    for path in FILES:
        if path.parts[0] == "tests" and path.suffix == ".py":
            tree = ast.parse(text_of(path))
            functions |= {
                node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            }
            functions.add(path.stem)
    named = {name for path in DOCUMENTS for name in re.findall(r"`(test_[a-z0-9_]+)`", text_of(path))}
    assert named - functions == set()


# -- links


def headings_of(path):
    """The anchors of a document's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", text_of(path), flags=re.DOTALL | re.MULTILINE)
    return {slug(line) for line in re.findall(r"^#{1,6} (.+)$", text, re.MULTILINE)}


def slug(heading):
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("path", DOCUMENTS, ids=str)
def test_every_link_of_the_document_leads_to_a_file_and_a_heading(path):
    prose = re.sub(r"^```.*?^```|`[^`\n]*`|^ {4}[^\n]*$", "", text_of(path), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        linked = (ROOT / path.parent / name).resolve() if name else ROOT / path
        assert linked.exists(), f"{path} links to {target}"
        if anchor:
            assert anchor in headings_of(linked.relative_to(ROOT)), f"{path} links to {target}"


# -- words

BANNED = re.compile(
    rf"(?<![a-z])(?:(?:{'|'.join(('no', 'some', 'any', 'every'))})body|who{'ever'})(?![a-z])", re.IGNORECASE
)
"""These words hide which object does something. The Unix account of the first one's name is the one exception."""
ACCOUNT = {
    "proxy/demo/servers.py": ["as the account `{}`"],
    "proxy/demo/server_process.py": ['for name in ("{}", "postgres", "daemon")', "none of the accounts {}, postgres"],
    "tests/README.md": ["as `{}` when run by root"],
    "tests/proxy/demo/test_servers.py": ['match="out of reach for {}"'],
}
"""Phrases that name the Unix account, by file; `{}` stands for its name."""


@pytest.mark.parametrize("path", FILES, ids=str)
def test_no_word_that_hides_who_acts(path):
    text = text_of(path)
    for phrase in ACCOUNT.get(path.as_posix(), ()):
        text = text.replace(phrase.format("no" + "body"), "")
    found = [
        f"{path}:{number}: {line.strip()}" for number, line in enumerate(text.splitlines(), 1) if BANNED.search(line)
    ]
    assert found == []


def test_every_listed_phrase_with_the_account_occurs():
    unused = [
        (name, phrase)
        for name, phrases in ACCOUNT.items()
        for phrase in phrases
        if not (ROOT / name).exists() or phrase.format("no" + "body") not in text_of(Path(name))
    ]
    assert unused == []
