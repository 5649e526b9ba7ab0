"""What the small commands share: a parser with one-line errors, JSON, and the mapping of errors to exits."""

import argparse
import difflib
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch

from eqgan.cli.guard import preparing
from eqgan.console import fail
from eqgan.groups import PlaneGroup
from eqgan.metrics.audit import named_group


class CommandParser(argparse.ArgumentParser):
    """Help with examples; a complaint is one line that names the nearest known option, and exit status 2.

    Args:
        command: such as ``"evaluate"``.
        summary: one sentence.
        examples: lines shown as they are.
    """

    def __init__(self, command: str, summary: str, examples: str) -> None:
        super().__init__(
            prog=f"eqgan {command}",
            description=summary,
            epilog=f"examples:\n{examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.add_argument("--json", action="store_true", help="print the results as JSON, and nothing else")

    def error(self, message: str) -> NoReturn:
        fail(f"{self.prog}: {message} (see {self.prog} --help)", status=2)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            known = [option for action in self._actions for option in action.option_strings]
            nearest = difflib.get_close_matches(unknown[0].split("=")[0], known, n=1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            self.error(f"unknown argument {unknown[0]!r}{hint}")
        return found


def run_command(
    parser: CommandParser, work: Callable[[argparse.Namespace], Any], argv: Sequence[str] | None
) -> Any:
    """Does the work of a command; what a person can put right ends in one line and exit status 1."""
    options = parser.parse_args(sys.argv[2:] if argv is None else argv)
    with preparing("stopped"):
        return work(options)


def as_json(value: Any) -> str:
    """Strict JSON: numbers that JSON does not have become null."""
    return json.dumps(_finite(value), indent=2, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def whole(least: int) -> Callable[[str], int]:
    """The type of an option that is a whole number of at least ``least``."""

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got {text!r}")
        return value

    return number


def named_run(text: str, log_dir: Path = Path("logs")) -> Path:
    """What a command is given of a run: a path as it is, or the bare name of one under ``logs/``."""
    path, there = Path(text), log_dir / text
    if path.name != text or path.exists() or not (there.is_dir() or not path.suffix):
        return path
    return there


def device_option(parser: argparse.ArgumentParser) -> None:
    """``--device``: the GPU where there is one, unless told otherwise."""
    best = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", type=_device, default=best, help=f"to compute on (default {best})")


def _device(text: str) -> torch.device:
    try:
        device = torch.device(text)
        torch.zeros(1, device=device)
        return device
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        raise argparse.ArgumentTypeError(f"no device {text!r} here ({str(error).splitlines()[0]})") from None


def group_option(parser: argparse.ArgumentParser, what: str, option: str = "--group") -> None:
    """An option whose value is a plane group of the square lattice."""
    parser.add_argument(option, type=_group, metavar="GROUP", help=f"plane group {what}")


def _group(text: str) -> PlaneGroup:
    try:
        return named_group(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def require_replaceable(out: Path, suffixes: tuple[str, ...], what: str, mark: str) -> None:
    """Looks before anything is computed whether a result may be written here.

    Args:
        out: the file.
        suffixes: what its name may end in.
        what: it is, for the error.
        mark: what such a file has in it, and others have not; an older one may be replaced.

    Raises:
        ValueError: another ending.
        FileExistsError: something else is there.
    """
    if out.suffix.lower() not in suffixes:
        raise ValueError(f"--out {out}: expected a name ending in {' or '.join(suffixes)}, for {what}")
    if out.is_dir() or (out.is_file() and mark.encode() not in out.read_bytes()):
        raise FileExistsError(f"--out {out}: something else than {what} is there; choose another name")
