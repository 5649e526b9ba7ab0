"""A classifier with what is done to its images in front of it: one network, one state."""

from jaxtyping import Float
from torch import Tensor, nn

from eqgan.data.preprocess import Preprocessing
from eqgan.networks import Classifier


class PreprocessedClassifier(Classifier):
    """What was fitted to the training images travels with the weights: an image in [-1, 1] is all it needs.

    Args:
        preprocess: fitted, or to be loaded.
        network: the classifier behind it.

    Raises:
        ValueError: if the preprocessing does not commute with the network's group, whose invariance would be
            lost.
    """

    def __init__(self, preprocess: Preprocessing, network: Classifier) -> None:
        super().__init__(network.image_shape, network.num_classes, network.group)
        if not preprocess.commutes_with(network.group):
            raise ValueError(
                f"{type(preprocess).__name__} does not commute with {network.group}, under which the network "
                f"is to be invariant: give it the group (--preprocess.group {network.group})"
            )
        self.preprocess, self.network = preprocess, network

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        return self.network(self.preprocess(x))

    def stages(self) -> dict[str, nn.ModuleList]:
        """Those of the classifier: what stands before it is fitted, not trained."""
        return self.network.stages()


def without_preprocessing(network: Classifier) -> Classifier:
    """The classifier behind the preprocessing, if there is one."""
    return network.network if isinstance(network, PreprocessedClassifier) else network
