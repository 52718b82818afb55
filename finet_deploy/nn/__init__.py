"""Layers and networks: FBN, MimicNorm, Finet, ResNet, VGG, SqueezeNet, ShuffleNetV2."""

from finet_deploy.nn.fbn import FBNConv2d, FBNLinear, set_impl
from finet_deploy.nn.finet import Finet, Grouping
from finet_deploy.nn.mimicnorm import LearnableScale, LearnableShift, MimicNorm
from finet_deploy.nn.resnet import ResNet
from finet_deploy.nn.shufflenet import ShuffleNetV2
from finet_deploy.nn.squeezenet import SqueezeNet
from finet_deploy.nn.sync import convert_sync_norm
from finet_deploy.nn.vgg import VGG

__all__ = [
    "FBNConv2d",
    "FBNLinear",
    "Finet",
    "Grouping",
    "LearnableScale",
    "LearnableShift",
    "MimicNorm",
    "ResNet",
    "ShuffleNetV2",
    "SqueezeNet",
    "VGG",
    "convert_sync_norm",
    "set_impl",
]
