"""Run benchmarks by name: `python -m benchmarks [NAME [ARGUMENTS] ...]`; by default `speed`."""

import importlib
import inspect
import sys
from pathlib import Path

NAMES = sorted(p.stem for p in Path(__file__).parent.glob("[a-z]*.py"))


def main() -> None:
    chosen: list[tuple[str, list[str]]] = []
    for word in sys.argv[1:] or ["speed"]:
        if word in NAMES:
            chosen.append((word, []))
        elif not chosen:
            sys.exit(f"no benchmark {word}; there are {', '.join(NAMES)}")
        else:
            chosen[-1][1].append(word)
    for name, arguments in chosen:
        module = importlib.import_module(f"benchmarks.{name}")
        takes = "arguments" in inspect.signature(module.main).parameters
        if arguments and not takes:
            sys.exit(f"{name} takes no arguments, and {arguments[0]} is no benchmark")
        print(f"\n## {name}\n\n{module.__doc__}\n", flush=True)
        module.main(*([arguments] if takes else []))


if __name__ == "__main__":
    main()
