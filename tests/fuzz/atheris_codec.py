"""Coverage-guided fuzzing of one target: ``python -m tests.fuzz.atheris_codec Bind [corpus directory] [-runs=…]``.

Needs atheris (``pip install atheris``), which is imported only when this program runs: the test suite does not need it.
The target's seeds are written into the first directory; libFuzzer adds what it finds there.
"""

import importlib
import sys
from pathlib import Path


def write_seeds(name: str, corpus: Path, seeds: list[bytes]) -> None:
    """Write the target's seeds into its corpus directory."""
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (corpus / f"{name}-{number:02}").write_bytes(seed)


def main(arguments: list[str]) -> int:
    try:
        atheris = importlib.import_module("atheris")
    except ImportError:
        sys.stderr.write("atheris is not installed\n")
        return 1
    with atheris.instrument_imports(include=["protocol"]):
        targets = importlib.import_module("tests.fuzz.targets")
    if not arguments or arguments[0] not in targets.TARGETS:
        sys.stderr.write(f"targets: {' '.join(targets.TARGETS)}\n")
        return 2
    name, *rest = arguments
    for directory in [Path(argument) for argument in rest if not argument.startswith("-")][:1]:
        write_seeds(name, directory, targets.seeds(name))
    atheris.Setup(["atheris_codec", *rest], targets.TARGETS[name])
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
