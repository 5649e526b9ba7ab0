"""Which sizes keep a symmetry exact: the sites a strided window visits must lie symmetrically."""

from eqgan.groups import FieldType, PlaneGroup


def check_channels(channels: int, in_type: FieldType, what: str) -> None:
    """Raises ValueError unless a map has the channels of its type: a reshape might take others in silence."""
    if channels != in_type.channels:
        raise ValueError(f"{what} expected {in_type.channels} channels ({in_type}), got {channels}")


def output_size(size: int, kernel_size: int, stride: int, padding: int, group: PlaneGroup, what: str) -> int:
    """Sites along one side after a window of ``kernel_size`` has slid over ``size`` sites.

    A stride keeps the symmetry exactly when the first and the last window leave the same margin, that is when
    ``size + 2 padding - kernel_size`` is a multiple of it. The trivial group has nothing to lose.

    Raises:
        ValueError: if a row would be dropped under a group other than z2, or nothing is left.
    """
    span = size + 2 * padding - kernel_size
    if span < 0:
        raise ValueError(
            f"{what}: a window of {kernel_size} does not fit a {size}x{size} map with padding {padding}. "
            f"Use a map of at least {max(1, kernel_size - 2 * padding)} sites a side or a smaller window."
        )
    if group.order > 1 and span % stride:
        rest = span % stride
        fitting = [s for s in (size - rest, size - rest + stride, size - rest + 2 * stride) if s > 0][:2]
        raise ValueError(
            f"{what}: stride {stride} with window {kernel_size} and padding {padding} on a {size}x{size} map "
            f"breaks {group} symmetry: {rest} row(s) on one side are never visited. "
            f"Sizes that work: {fitting[0]}, {fitting[1]}, ... "
            "(size + 2 padding - window must be a multiple of the stride)."
        )
    return span // stride + 1
