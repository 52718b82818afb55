"""Layers and networks: FBN, Finet, ResNet with FBN."""

from finet_deploy.nn.fbn import FBNConv2d, FBNLinear
from finet_deploy.nn.finet import Finet, Grouping
from finet_deploy.nn.resnet import ResNetFBN

__all__ = ["FBNConv2d", "FBNLinear", "Finet", "Grouping", "ResNetFBN"]
