"""Batch normalisation folded into the convolution before it: in evaluation both are one linear map.

A member that only predicts needs no pass of its own over each feature map for it. Answers differ in the last digits
from those of the layers one after the other (1e-8 of the target's spread, compact network).
"""

from __future__ import annotations

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batch_norm(network: nn.Module) -> None:
    """Fold, in place, every batch normalisation that directly follows a convolution in a chain of layers.

    Identities take the places of the folded layers, so that indices of layers keep their meaning.

    Args:
        network: in evaluation mode.

    References:
        Jacob B et al. Quantization and training of neural networks for efficient integer-arithmetic-only inference.
        CVPR 2018, section 3.2.
    """
    # A subclass with a way of its own through its layers is no chain.
    sequences = [module for module in network.modules() if isinstance(module, nn.Sequential)]
    for chain in [sequence for sequence in sequences if type(sequence).forward is nn.Sequential.forward]:
        for number in range(len(chain) - 1):
            convolution, norm = chain[number], chain[number + 1]
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                chain[number], chain[number + 1] = fuse_conv_bn_eval(convolution, norm), nn.Identity()
