"""What every command's words share: a parser that explains itself, short forms, the settings of any run."""

import argparse
import inspect
import json
import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn, get_args

import jsonargparse

import eqgan.training.rebuild  # noqa: F401  registers the types that settings may have
from eqgan.console import fail
from eqgan.nearest import nearest
from eqgan.training.folder import RunFolder, is_of_classifier

Named = str | tuple[str, Mapping[str, Any]]
"""What a value of an option names: a class (dotted path), perhaps with arguments other than its defaults."""
Choices = Mapping[str, tuple[str, Mapping[str, Named]]]
"""Option to the setting it stands for, and to what its values name."""
Short = Mapping[str, str]
"""Option to the nested setting it stands for."""


_A_CLASS = "a class (class_path: package.module.Class; short names are for the command line)"

SHORT_FOR_DATA: Short = {
    "--data": "--dataset.source",
    "--data-root": "--dataset.root",
    "--size": "--dataset.size",
    "--batch-size": "--dataset.batch_size",
    "--fraction": "--dataset.fraction",
}

OTHER = {
    **dict.fromkeys(("generator", "discriminator", "gan", "evaluation"), "train"),
    **dict.fromkeys(("network", "fit", "judging", "finetune"), "classify"),
}
"""Which command has settings that begin so."""


class Parser(jsonargparse.ArgumentParser):
    """A parser whose complaints are one line that names the nearest known key or value.

    Attributes:
        short_forms: options that ``expand_words`` understands besides the parser's own, and may be meant,
            with the settings they stand for.
    """

    short_forms: Short = MappingProxyType({})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        fail(self._clear(str(ex or message)), status=2)

    def parse_args(self, *args: Any, **options: Any) -> jsonargparse.Namespace:
        try:
            parsed = super().parse_args(*args, **options)
        except UnicodeDecodeError as error:
            self.error(f"--config: expected a text file in YAML, got other bytes ({error})")
        self._require_values(parsed)
        return parsed

    def _require_values(self, parsed: jsonargparse.Namespace) -> None:
        """A key with nothing behind it is null in YAML, which jsonargparse takes for any type."""
        for action in self._actions:
            hint = getattr(action, "_typehint", action.type)
            optional = action.default in (None, argparse.SUPPRESS) or type(None) in get_args(hint)
            if not optional and parsed.get(action.dest, action.default) is None:
                self.error(f"{action.dest}: expected a value, got nothing (null)")

    def _clear(self, message: str) -> str:
        patterns = (
            r"Group '(?P<group>[\w.]+)' does not accept (?:nested )?(?:option|key) '(?P<key>[\w.-]+)'",
            r"(?:Option|Key|option|key) [\"'](?P<key>[\w.-]+)[\"'] is not (?:accepted|expected)",
            r"[Uu]nrecognized arguments: (?P<key>\S+)",
        )
        for pattern in patterns:
            if found := re.search(pattern, message):
                parts = found.groupdict()
                prefix = f"{parts['group']}." if parts.get("group") else ""
                return self._unknown(prefix + parts["key"].lstrip("-").split("=")[0])
        if nested := re.search(
            r'Parser key "(?P<option>[\w.]+)".*NestedArg\(key=\'(?P<key>[\w.]+)\'', message, re.DOTALL
        ):
            option, key = nested["option"], nested["key"]
            return f"{option}.{key}: there is no {option} to set it of; choose one first with --{option}"
        if unexpected := re.match(r"Unexpected config:(?P<text>.*)", message, re.DOTALL):
            found_text = " ".join(unexpected["text"].split()) or "an empty file"
            return f"--config: expected settings, one 'name: value' a line, got {found_text}"
        if named := re.search(r"Expected a path but (\w+) either not accessible", message):
            key = re.findall(r'Parser key "([\w.]+)":', message)[-1:]
            return ": ".join([*key, f"expected {_A_CLASS}, got {named[1]!r}"])
        if named := re.search(r"Unable to load config ['\"](?P<got>[^'\"]*)", message):
            return f"expected settings, one 'name: value' a line, or a file of them, got {named['got']!r}"
        lines = [_plain_types(line).strip(" -") for line in message.splitlines() if line.strip()]
        keys = [k for line in lines for k in re.findall(r'^Parser key "([\w.]+)":', line)]
        told = [re.sub(r'^Parser key "[\w.]+":\s*', "", line) for line in lines]
        told = [line for line in told if line and not line.startswith(("Problem with given", "Subtypes:"))]
        told = [
            line for line in told if not line.startswith(("Errors:", "Given value type:", "Does not val"))
        ]
        text = re.sub(r"(?<=\S) Expected an? ", " or ", " ".join(told)).replace(
            " Given value:", ". Got value:"
        )
        return ": ".join([".".join(keys), text] if keys else [text])

    def _unknown(self, typed: str) -> str:
        if not self._settings():
            return f"unknown setting {typed!r}: the class that was chosen has none."
        if target := self.short_forms.get(f"--{typed.replace('_', '-')}"):
            return (
                f"{typed!r} is short for the command line only: expected {target.lstrip('-')!r} in a file "
                "(--print_config shows the settings that the words of a command line stand for)"
            )
        if typed == "group" and not self._is_whole():
            told = "the class that was chosen has no plane group; leave out the option that names one"
            return f"unknown setting 'group': {told}.{self._own()}"
        first = typed.partition(".")[0]
        if self._is_whole() and (other := OTHER.get(first)) and not self._has(first):
            return f"unknown setting {typed!r}: it is one of eqgan {other}, as is a config file that has it."
        return f"unknown setting {typed!r}; did you mean {self._nearest(typed)!r}?{self._own()}"

    def _has(self, first: str) -> bool:
        return any(name.partition(".")[0] == first for name in self._settings())

    def _nearest(self, typed: str) -> str:
        known = self._settings()
        if self._is_whole():
            known += [short.lstrip("-") for short in self.short_forms]
        return nearest(typed, known)

    def _own(self) -> str:
        """The settings of a class, which are few enough to list; jsonargparse parses them on their own."""
        return "" if self._is_whole() else f" The class that was chosen has: {', '.join(self._settings())}."

    def _is_whole(self) -> bool:
        return "--config" in self._option_string_actions

    def _settings(self) -> list[str]:
        names = [o.lstrip("-") for action in self._actions for o in action.option_strings]
        return [n for n in names if n not in ("h", "help") and not n.endswith(".help")]


def _plain_types(line: str) -> str:
    """Types as a person would name them: ``int`` for ``<class 'int'>``, ``null`` for ``NoneType``."""
    line = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", line).replace("NoneType", "null")
    line = re.sub(r"typing\.Literal\[(.*?)\]", r"one of \1", line)
    return line.replace("Expected a one", "Expected one").replace("Expected a int", "Expected an int")


def new_parser(prog: str, description: str, choices: Choices, short: Short) -> Parser:
    """An empty parser of a command, whose help shows ``description`` as it is written."""
    parser = Parser(
        prog=prog,
        allow_abbrev=False,
        description=description,
        formatter_class=type("Formatter", (jsonargparse.DefaultHelpFormatter,), {"_fill_text": _as_written}),
    )
    parser.short_forms = {**short, **{option: setting for option, (setting, _) in choices.items()}}
    return parser


def add_run_settings(parser: Parser, seed: str, epochs: str) -> None:
    """The settings that every training run has; ``seed`` and ``epochs`` say what they mean here."""
    parser.add_argument("--config", action="config", help="YAML file with any of the settings below")
    parser.add_argument("--name", type=str | None, help="of the run; made from the settings by default")
    parser.add_argument("--seed", type=int, default=0, help=seed)
    parser.add_argument("--epochs", type=int | None, help=epochs)
    parser.add_argument(
        "--resume",
        type=str | bool,
        nargs="?",
        const=True,
        default=False,
        help="go on with the run of this name; without a name, with the last one named after these settings",
    )
    parser.add_argument("--overwrite", type=bool, nargs="?", const=True, default=False, help="replace a run")
    parser.add_argument("--log_dir", type=Path, default=Path("logs"), help="parent of logs/<run>")
    parser.add_argument("--precision", type=str, default="auto", help="auto, 32-true or bf16-mixed")
    parser.add_argument(
        "--rollbacks", type=int, default=3, help="times to go back with halved learning rates after diverging"
    )
    parser.add_argument(
        "--deterministic", type=bool, nargs="?", const=True, default=False, help="the same bits on a GPU too"
    )
    parser.add_argument(
        "--compile",
        type=str | None,
        nargs="?",
        const="inductor",
        help="compile the networks with this backend of torch.compile (inductor, if none is named)",
    )
    parser.add_argument("--trainer", type=dict[str, Any], default={}, help="arguments of Lightning's Trainer")


def parse_run(parser: Parser, words: Sequence[str]) -> jsonargparse.Namespace:
    """The settings of a run, with those of the run to resume under them if one is named.

    Args:
        words: already expanded.

    Raises:
        FileNotFoundError: if there is no such run to resume.
    """
    named, places = _run_to_resume(words)
    if named is None:
        return parser.parse_args(words)
    log_dir, where = parser.parse_args(places).log_dir, []
    if (path := Path(named)).name != named:  # the folder of the run
        named, log_dir, where = path.name, path.parent, ["--log_dir", str(path.parent)]
    folder = RunFolder(named, log_dir)
    if not folder.config.is_file():
        raise FileNotFoundError(
            f"--resume {named}: no such run in {log_dir}. "
            f"Runs there: {', '.join(folder.siblings()) or 'none'}."
        )
    _require_kind(parser, folder)
    return parser.parse_args(["--config", str(folder.config), "--name", named, *words, *where])


def _require_kind(parser: Parser, folder: RunFolder) -> None:
    """Raises ValueError for the run of a classifier where a GAN's is expected, or the other way round."""
    kinds = {False: "a GAN (eqgan train)", True: "a classifier (eqgan classify)"}
    found = is_of_classifier(folder.config)
    expected = any(action.dest == "network" for action in parser._actions)
    if found != expected:
        raise ValueError(
            f"--resume {folder.name}: expected the run of {kinds[expected]}, got that of {kinds[found]}"
        )


def _run_to_resume(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """The name after --resume, if any, and the words that say where its folder is.

    The other words may fit the settings of that run only, such as arguments of the classes it chose.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--resume", nargs="?", const="true", default="false")
    parser.add_argument("--log_dir", nargs="?")  # a value that is missing is for the parser itself to tell
    parser.add_argument("--config", nargs="?", action="append", default=[])
    known, _ = parser.parse_known_args(list(words))
    named = None if known.resume.lower() in ("true", "false") else known.resume
    places = [word for path in known.config if path for word in ("--config", path)]
    return named, places + ([] if known.log_dir is None else ["--log_dir", known.log_dir])


def _as_written(self: Any, text: str, width: int, indent: str) -> str:
    return "\n".join(indent + line for line in text.splitlines())


def expand_words(argv: Sequence[str], choices: Choices, short: Short) -> list[str]:
    """Replaces the short forms by the nested settings they stand for, classes before their arguments.

    Config files come first, wherever they stand: what is typed beside a file overrides it.

    Raises:
        ValueError: for an unknown choice, naming the nearest, or an option without its value.

    Example:
        >>> choices = {"--opt": ("--optimizer", {"sgd": "torch.nn.Flatten"})}
        >>> expand_words(["--group", "p4", "--opt", "sgd"], choices, {"--group": "--network.group"})[:2]
        ['--optimizer', 'torch.nn.Flatten']
        >>> expand_words(["--group", "p4"], choices, {"--group": "--network.group"})
        ['--network.group', 'p4']
        >>> expand_words(["--opt.help", "sgd"], choices, {})
        ['--optimizer.help', 'torch.nn.Flatten']
    """
    configs: list[str] = []
    classes: list[str] = []
    rest: list[str] = []
    words = list(argv)
    while words:
        option, inline, value = words.pop(0).partition("=")
        key = option.replace("_", "-") if option.startswith("--") else option
        if (key in choices or key in short) and not inline and not words:
            raise ValueError(f"{key}: expected one argument")
        if key in choices:
            target, names = choices[key]
            chosen = value if inline else words.pop(0)
            if chosen in names:
                classes += _constructor_call(target, names[chosen])
            elif "." in chosen or chosen[:1].isupper():  # a class of one's own
                rest += [target, chosen]
            else:
                raise ValueError(_unknown_choice(key, chosen, names))
        elif key in short:
            rest += [short[key] + inline + value]
        elif (base := key.removesuffix(".help")) != key and base in choices and (inline or words):
            target, names = choices[base]
            asked = value if inline else words.pop(0)
            rest += [f"{target}.help", _class_path(names.get(asked, asked))]
        elif key in ("--log-dir", "--samples-dir"):
            rest += [key.replace("-dir", "_dir") + inline + value]
        elif key == "--config":
            configs += [option + inline + value, *([] if inline or not words else [words.pop(0)])]
        else:
            rest.append(option + inline + value)
    return configs + classes + rest


FROM_DATA = ("image_shape", "num_classes")
"""Arguments of networks that are no settings: the images say them."""


def _constructor_call(target: str, named: Named) -> list[str]:
    """A class chosen by name starts from its own defaults, not from what another class left behind."""
    if named == "null":
        return [target, "null"]
    class_path, arguments = _class_path(named), {} if isinstance(named, str) else named[1]
    module, _, name = class_path.rpartition(".")
    signature = inspect.signature(getattr(import_module(module), name)).parameters
    empty = inspect.Parameter.empty
    defaults = {k: p.default for k, p in signature.items() if p.default is not empty and k not in FROM_DATA}
    words = [target, class_path]
    for key, value in {**defaults, **arguments}.items():
        words += [f"{target}.{key}", value if isinstance(value, str) else json.dumps(value, default=str)]
    return words


def _class_path(named: Named) -> str:
    return named if isinstance(named, str) else named[0]


def _unknown_choice(key: str, chosen: str, names: Mapping[str, Any]) -> str:
    meant = nearest(chosen, names)
    return f"{key}: unknown value {chosen!r}; did you mean {meant!r}? Known: {', '.join(names)}"
