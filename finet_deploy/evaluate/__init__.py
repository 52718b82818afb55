"""Accuracy of a network, and of every exported file in its own runtime, on the same images in the same order."""

from __future__ import annotations

from finet_deploy.evaluate.evaluation import Evaluation, Row, evaluate_runners
from finet_deploy.evaluate.runners import bundle_runners, check_classes, evaluate_bundle, model_runner

__all__ = [
    "Evaluation",
    "Row",
    "bundle_runners",
    "check_classes",
    "evaluate_bundle",
    "evaluate_runners",
    "model_runner",
]
