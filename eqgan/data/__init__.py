"""Readers of image sets, the definition of Rotated MNIST, and what feeds batches to a training run."""
