"""eqgan: adversarial networks, classifiers and regressors that know the symmetry of their data."""

__version__ = "0.1.0"
