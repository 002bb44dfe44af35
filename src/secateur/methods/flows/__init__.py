"""Flows: a short vector that says how a network passes on information, or gradients, by layer."""

from secateur.methods.flows._gradient import GradientFlow
from secateur.methods.flows._information import InformationFlow
from secateur.methods.flows._protocol import Flow, Over

__all__ = ["Flow", "GradientFlow", "InformationFlow", "Over"]
