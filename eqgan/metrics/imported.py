"""A network of the user's own, by the dotted path of what makes it."""

import difflib
import importlib
import os
import sys
from types import ModuleType

from torch import nn


def module_from_path(path: str, role: str = "network") -> nn.Module:
    """The user's own network, from `"pkg.module:factory"` or `"pkg.module.Class"`.

    What the path names is called without arguments and must return an `nn.Module` (an `nn.Module` instance is
    taken as it is). Modules in the current directory are found.

    Args:
        path: of a class, a function or a module.
        role: what to call it in errors.

    Raises:
        ValueError: No such module, an error while importing it, no such name in it (nearest names are
            given), a call that fails, or something that is not an `nn.Module`.

    >>> module_from_path("torch.nn:Flatten")
    Flatten(start_dim=1, end_dim=-1)
    """
    module_name, _, attribute = path.rpartition(":" if ":" in path else ".")
    if not module_name or not attribute:
        raise ValueError(f'{role} {path!r}: expected "package.module:factory" or "package.module.Class".')
    here = os.getcwd()
    added = here not in sys.path
    if added:
        sys.path.append(here)
    try:
        found = _attribute(_imported(module_name, path, role), attribute, path, role)
        network = found if isinstance(found, nn.Module) else _called(found, path, role)
    finally:
        if added and here in sys.path:
            sys.path.remove(here)
    return network


def _imported(module_name: str, path: str, role: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except Exception as error:  # the user's module may raise anything
        raise ValueError(
            f"{role} {path!r}: module {module_name!r} cannot be imported "
            f"({type(error).__name__}: {error}). Run from the folder that holds it, or install it."
        ) from error


def _attribute(module: ModuleType, attribute: str, path: str, role: str) -> object:
    if hasattr(module, attribute):
        return getattr(module, attribute)
    names = [name for name in dir(module) if not name.startswith("_")]
    near = difflib.get_close_matches(attribute, names) or names[:5]
    raise ValueError(
        f"{role} {path!r}: module {module.__name__!r} has no {attribute!r}. "
        f"Nearest names: {', '.join(near) or 'none, the module is empty'}."
    )


def _called(found: object, path: str, role: str) -> nn.Module:
    if not callable(found):
        raise ValueError(
            f"{role} {path!r} is of type {type(found).__name__}: expected a class or function that "
            "returns an nn.Module."
        )
    try:
        network = found()
    except Exception as error:
        raise ValueError(
            f"{role} {path!r}: calling it without arguments failed "
            f"({type(error).__name__}: {error}). Name a function that takes no arguments."
        ) from error
    if not isinstance(network, nn.Module):
        raise ValueError(f"{role} {path!r} returned {type(network).__name__}: expected an nn.Module.")
    return network
