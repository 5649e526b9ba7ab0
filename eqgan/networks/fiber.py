"""Pooling over part of the fiber between the layers of a network: over which subgroup, how, and where."""

import re
from dataclasses import dataclass
from typing import Literal

from eqgan.groups import FieldType, PlaneGroup, plane_group
from eqgan.nn import CosetPool, SubgroupPool
from eqgan.nn.pooling import PoolMode

FiberKind = Literal["coset", "subgroup"]
_FORM = re.compile(
    r"(?:group|(?P<kind>coset|subgroup):(?P<name>\w+))(?::(?P<mode>max|mean))?(?:@(?P<layers>\d+(?:,\d+)*))?"
)


@dataclass(frozen=True)
class FiberPool:
    """What stands over the fiber after a layer of a network.

    ``"coset"`` pools each coset of H: fields on G/H, exactly G-equivariant; with H = G (``subgroup=None``) it
    is the rotation pooling of P4CNN-RP, after which the next layer lifts again. ``"subgroup"`` pools a
    transversal and samples on H, a stride over the group: all that follows is equivariant under H only.

    Args:
        kind: ``"coset"`` or ``"subgroup"``.
        subgroup: H; None stands for the whole group.
        after: numbers of the layers, from 1, it follows; None is every layer. A subgroup pool names one.
        mode: ``"max"`` or ``"mean"``.

    References:
        Cohen & Welling, arXiv:1602.07576, sections 6.3 and 8.1.
    """

    kind: FiberKind = "coset"
    subgroup: PlaneGroup | None = None
    after: tuple[int, ...] | None = None
    mode: PoolMode = "max"

    def __post_init__(self) -> None:
        if self.kind not in ("coset", "subgroup"):
            raise ValueError(f"expected kind 'coset' or 'subgroup', got {self.kind!r}")
        if self.mode not in ("max", "mean"):
            raise ValueError(f"expected mode 'max' or 'mean', got {self.mode!r}")
        if self.after is not None and (not self.after or min(self.after) < 1):
            raise ValueError(f"expected numbers of layers from 1, got {self.after}")
        if self.kind == "subgroup" and (self.subgroup is None or len(self.after or ()) != 1):
            raise ValueError(
                "a subgroup pool leaves only the symmetry of H to all that follows: name H and the one layer "
                f"it stands after, such as 'subgroup:p2@2'; got {str(self)!r}"
            )

    def check(self, layers: int, what: str) -> None:
        """Raises ValueError if it is to stand after a layer that ``what`` does not have."""
        if self.after is not None and max(self.after) > layers:
            raise ValueError(
                f"{what} can pool the fiber after its layers 1 to {layers}, got {str(self)!r}; "
                "after the last one the whole fiber is pooled anyway"
            )

    def __str__(self) -> str:
        parts = ["group"] if self.subgroup is None else [self.kind, str(self.subgroup)]
        parts += [] if self.mode == "max" else [self.mode]
        return ":".join(parts) + ("" if self.after is None else "@" + ",".join(map(str, self.after)))


def pools_after(
    depth: int, in_type: FieldType, fiber: FiberPool | None
) -> tuple[()] | tuple[CosetPool | SubgroupPool]:
    """The pool that follows the layer of this number, if one does."""
    if fiber is None or (fiber.after is not None and depth not in fiber.after):
        return ()
    if fiber.kind == "subgroup" and fiber.subgroup is not None:
        return (SubgroupPool(in_type, fiber.subgroup, fiber.mode),)
    return (CosetPool(in_type, fiber.subgroup or in_type.group, fiber.mode),)


def fiber_pool(text: str) -> FiberPool:
    """A fiber pool from its text: ``group``, ``coset:H`` or ``subgroup:H``, then ``:mean``, then ``@layers``.

    Raises:
        ValueError: for another form, or an unknown group.

    Example:
        >>> fiber_pool("coset:p2:mean@2,4") == FiberPool("coset", plane_group("p2"), (2, 4), "mean")
        True
    """
    found = _FORM.fullmatch(text)
    if not found:
        raise ValueError(
            "expected 'group', 'coset:H' or 'subgroup:H@layer' for the fiber, such as 'coset:p2' or "
            f"'subgroup:p2@2', got {text!r}"
        )
    kind, name, mode, layers = found.group("kind", "name", "mode", "layers")
    after = tuple(int(n) for n in layers.split(",")) if layers else None
    subgroup = plane_group(name) if name else None
    return FiberPool(kind or "coset", subgroup, after, mode or "max")
