"""Images of strong gravitational lenses by ray-shooting; docs/lensing.md states equations and priors."""

from eqgan.data.lensing.light import Sersic, blur, observe
from eqgan.data.lensing.mass import SIE, Filament, Mass, Shear, TruncatedSphere
from eqgan.data.lensing.priors import TASKS, Scene, Task, draw
from eqgan.data.lensing.simulator import render, simulate, sky

__all__ = [
    "SIE",
    "TASKS",
    "Filament",
    "Mass",
    "Scene",
    "Sersic",
    "Shear",
    "Task",
    "TruncatedSphere",
    "blur",
    "draw",
    "observe",
    "render",
    "simulate",
    "sky",
]
