"""Metrics of generated images on the features of any network: functions, and torchmetrics classes on top."""

from .classes import ClassScores, class_accuracy, score_classes
from .evaluate import Scores, score_features
from .features import FeatureExtractor, features_from_path, module_hash
from .frechet import FeatureStatistics, FeatureSums, FrechetDistance, frechet_distance
from .inception import inception_features
from .kernel import kernel_distance
from .memorisation import Memorisation, memorisation, nearest_distances
from .neighbours import Neighbours, PrecisionRecallDensityCoverage, precision_recall_density_coverage
from .orbit import orbit_distance
from .reference import METRIC_VERSION, Reference, reference_statistics

__all__ = [
    "METRIC_VERSION",
    "ClassScores",
    "FeatureExtractor",
    "FeatureStatistics",
    "FeatureSums",
    "FrechetDistance",
    "Memorisation",
    "Neighbours",
    "PrecisionRecallDensityCoverage",
    "Reference",
    "Scores",
    "class_accuracy",
    "features_from_path",
    "frechet_distance",
    "inception_features",
    "kernel_distance",
    "memorisation",
    "module_hash",
    "nearest_distances",
    "orbit_distance",
    "precision_recall_density_coverage",
    "reference_statistics",
    "score_classes",
    "score_features",
]
