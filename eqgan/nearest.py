"""What was probably meant by a name that is not known; imported from anywhere."""

import difflib
from collections.abc import Iterable


def nearest(given: str, known: Iterable[str]) -> str:
    """The known name that looks most like ``given``, however little; there must be one.

    >>> nearest("p4n", ("z2", "p4m"))
    'p4m'
    """
    return difflib.get_close_matches(given, list(known), n=1, cutoff=0.0)[0]
