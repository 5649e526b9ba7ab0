"""From the settings kept in a checkpoint back to the objects they were made of."""

from importlib import import_module
from typing import Any, TypeVar

import jsonargparse
from jsonargparse.typing import register_type

from eqgan.groups import PlaneGroup, plane_group
from eqgan.networks import FiberPool, fiber_pool


def _plane_group(value: Any) -> PlaneGroup:
    """By its name, also from the constructor call that jsonargparse makes of a default value."""
    return plane_group(value["init_args"]["name"] if isinstance(value, dict) else value)


register_type(PlaneGroup, str, _plane_group)
register_type(FiberPool, str, fiber_pool)
jsonargparse.set_parsing_settings(subclasses_enabled=[PlaneGroup, FiberPool])  # values, not nested fields

T = TypeVar("T")


def build(spec: Any, **more: Any) -> Any:
    """The object that a ``class_path`` with ``init_args``, already parsed, stands for; None for None."""
    if spec is None:
        return None
    module, _, name = spec.class_path.rpartition(".")
    arguments = {key: _built(value) for key, value in dict(spec.get("init_args") or {}).items()}
    return getattr(import_module(module), name)(**more, **arguments)


def _built(value: Any) -> Any:
    """Arguments may be constructor calls themselves, or lists of them."""
    if isinstance(value, list):
        return [_built(part) for part in value]
    return build(value) if isinstance(value, jsonargparse.Namespace) and "class_path" in value else value


def rebuild(base: type[T], spec: dict[str, Any], **more: Any) -> T:
    """The object of plain settings, as a config file or a checkpoint holds them.

    Args:
        base: what it must be a subclass of; nothing else is called.
        spec: ``class_path`` and ``init_args``.
        more: arguments that are no settings.

    Raises:
        ValueError: for a class that is no subclass of ``base``, or arguments it does not take.

    Example:
        >>> from eqgan.networks import Classifier
        >>> spec = {"class_path": "eqgan.networks.P4CNNClassifier", "init_args": {"group": "p4m", "width": 8}}
        >>> rebuild(Classifier, spec, image_shape=(1, 28, 28), num_classes=3).group.name
        'p4m'
    """
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(base, "object", skip=set(more), required=True)
    try:
        parsed = parser.parse_object({"object": spec}).object
        return build(parsed, **more)
    except (jsonargparse.ArgumentError, TypeError, ImportError, AttributeError) as error:
        raise ValueError(f"{base.__name__} cannot be built from {spec}: {error}") from error
