"""The network of one ensemble member: convolutions, global average pooling, dense layers, (mu, sigma).

One that was distilled from an ensemble has a third output: (mu, aleatoric variance, epistemic variance).

Shapes: B pictures, C channels, H rows, W columns; h, w rows and columns of the last feature map; F pooled features.
"""

from __future__ import annotations

import copy
import io
import math
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from sarc_ray import storage
from sarc_ray.errors import ConfigError
from sarc_ray.stage1.ridge import fit_ridge
from sarc_ray.stage1.settings import COMPACT, NetworkConfig

# Channel statistics that torchvision's ImageNet weights were trained with (its models' documentation).
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_SD = (0.229, 0.224, 0.225)
# Smallest sigma in standardised units. Without a floor one lucky residual of zero drives the likelihood to infinity.
SIGMA_FLOOR = 0.01
# Bounds of the logarithm of a distilled network's variances in standardised units; real ones lie within -10 and 3.
_LOG_VARIANCE_MAX = 20.0
# softplus(x) = 1 at x = log(e - 1): an untrained network predicts the training set's own spread.
_UNIT_SOFTPLUS = math.log(math.e - 1.0)
# Principal axes of frozen features that a head sees (a ridge start sees all features). Adam on a thousand correlated
# features of a few hundred patients overfits within two or three epochs; on their leading axes, scaled by how much
# they vary, it does not.
HEAD_AXES = 256
# Products of features and weights that are held at once in evaluation on a CPU: 1 MB of float32.
_PRODUCTS_AT_ONCE = 2**18
_COMPACT_CHANNELS = (16, 32, 64, 96)


class _RowwiseLinear(nn.Linear):
    """A dense layer whose answer for a row is the same, bit for bit, wherever in a batch the row lies.

    Matrix products treat the rows at a batch's edge with other kernels, which sum in another order (seen with MKL:
    the same features gave another mu at another place of the batch). Training keeps the fast product.
    """

    def forward(self, x_BF: torch.Tensor) -> torch.Tensor:
        if self.training:
            return super().forward(x_BF)
        return _rowwise_product(x_BF, self.weight) + self.bias


def _rowwise_product(x_BF: torch.Tensor, weight_KF: torch.Tensor) -> torch.Tensor:
    # All products of a batch at once leave a CPU's cache: five times as slow with 64 units over 2,560 features.
    n_rows = max(1, _PRODUCTS_AT_ONCE // weight_KF.numel()) if x_BF.device.type == "cpu" else len(x_BF)
    return torch.cat([(part_bF[:, None, :] * weight_KF).sum(dim=-1) for part_bF in torch.split(x_BF, n_rows)])


class GaussianNetwork(nn.Module):
    """Convolutions, global average pooling and a dense head with two outputs per picture, or three if distilled.

    Outputs are in standardised target units. Over frozen convolutions the head sees pooled features standardised and
    turned into principal axes, which ``standardise_features`` learns once, and corrects a linear prediction from all
    of them, which is 0 but after ``start_from_ridge``; otherwise it sees pooled features as they are.
    """

    feature_mean: torch.Tensor
    feature_sd: torch.Tensor
    feature_axes: torch.Tensor
    linear_weights: torch.Tensor

    def __init__(self, backbone: nn.Sequential, config: NetworkConfig, *, distilled: bool = False):
        super().__init__()
        self.distilled = distilled
        self.backbone = backbone
        self.pooled_layers = _pooled_layers(backbone, config)
        self.grid = config.pooling_grid
        n_features = _count_features(backbone, config)
        self.register_buffer("feature_mean", torch.zeros(n_features))
        self.register_buffer("feature_sd", torch.ones(n_features))
        self.frozen_features = config.trainable == "head"
        width = min(n_features, HEAD_AXES) if self.frozen_features else n_features
        if self.frozen_features:
            self.register_buffer("feature_axes", torch.eye(width, n_features))
            self.register_buffer("linear_weights", torch.zeros(n_features))
        layers: list[nn.Module] = []
        for units in config.hidden_units:
            # Leaky: Adam's first steps along thousands of standardised features can push every unit below zero at
            # once. Plain ones then pass no gradient, and the member says the same of every picture from there on.
            layers += [nn.Dropout(config.dropout), _RowwiseLinear(width, units), nn.LeakyReLU()]
            width = units
        output = _RowwiseLinear(width, 3 if distilled else 2)
        # Start from "mean of the training set, its own spread": z = 0, sigma = 1.
        nn.init.normal_(output.weight, std=0.01)
        nn.init.zeros_(output.bias)
        self.head = nn.Sequential(*layers, nn.Dropout(config.dropout), output)

    def forward(self, x_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Predict from pictures as ``normalise`` makes them.

        Returns:
            mu_B and sigma_B (> 0), both in standardised target units.
        """
        return self.predict(self.pool(self.feature_maps(x_BCHW)))

    def train(self, mode: bool = True) -> GaussianNetwork:
        """Switch dropout and batch statistics on or off; frozen layers stay in evaluation mode.

        Otherwise batch normalisation in frozen layers would go on learning the training set's statistics.
        """
        super().train(mode)
        for layer in self.backbone:
            if not any(parameter.requires_grad for parameter in layer.parameters()):
                layer.eval()
        return self

    def feature_maps(self, x_BCHW: torch.Tensor) -> list[torch.Tensor]:
        """The maps (B, C, h, w) that are pooled: output of the last convolution, or of the blocks asked for."""
        maps = []
        for index, layer in enumerate(self.backbone):
            x_BCHW = layer(x_BCHW)
            if index in self.pooled_layers:
                maps.append(x_BCHW)
        return maps

    def pool(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """Averages of the maps per channel and field of the grid, (B, F)."""
        if self.grid == 1:
            return torch.cat([map_BChw.mean(dim=(2, 3)) for map_BChw in maps], dim=1)
        fields = [functional.adaptive_avg_pool2d(map_BChw, self.grid).flatten(1) for map_BChw in maps]
        return torch.cat(fields, dim=1)

    def predict(
        self, features_BF: torch.Tensor, linear_B: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Apply the head to pooled features: mu_B and sigma_B; ``linear_B`` stands in for the linear prediction.

        The sigma of a distilled network is the aleatoric one.
        """
        if self.distilled:
            mu_B, log_aleatoric_B, _ = self.predict_parts(features_BF)
            return mu_B, torch.exp(0.5 * log_aleatoric_B)
        z_BF = (features_BF - self.feature_mean) / self.feature_sd
        raw_B2 = self.head(self._principal(z_BF) if self.frozen_features else z_BF)
        mu_B = raw_B2[:, 0]
        if linear_B is not None:
            mu_B = mu_B + linear_B
        elif self.frozen_features:
            mu_B = mu_B + (z_BF * self.linear_weights).sum(dim=-1)
        return mu_B, functional.softplus(raw_B2[:, 1] + _UNIT_SOFTPLUS) + SIGMA_FLOOR

    def predict_parts(self, features_BF: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Apply a distilled network's head: mu_B, and the logarithms of aleatoric and (unbiased) epistemic variance."""
        raw_B3 = self.head((features_BF - self.feature_mean) / self.feature_sd)
        log_B2 = raw_B3[:, 1:].clamp(-_LOG_VARIANCE_MAX, _LOG_VARIANCE_MAX)
        return raw_B3[:, 0], log_B2[:, 0], log_B2[:, 1]

    def _principal(self, z_BF: torch.Tensor) -> torch.Tensor:
        return z_BF @ self.feature_axes.T if self.training else _rowwise_product(z_BF, self.feature_axes)

    def standardise_features(self, features_NF: torch.Tensor) -> None:
        """Learn centre, scale and principal axes of frozen features from those of the training pictures.

        Axes are scaled alike, the first to unit spread. Dead features keep a scale of 1; with fewer pictures than axes
        the spare ones are zero.
        """
        sd_F = features_NF.std(dim=0, correction=0)
        self.feature_mean.copy_(features_NF.mean(dim=0))
        self.feature_sd.copy_(torch.where(sd_F > 1e-6, sd_F, torch.ones_like(sd_F)))
        z_NF = ((features_NF - self.feature_mean) / self.feature_sd).double()
        self.feature_axes.copy_(_principal_axes(z_NF, len(self.feature_axes)))

    def start_from_ridge(
        self, features_KNF: torch.Tensor, y_N: torch.Tensor, tune_TF: torch.Tensor, y_tune_T: torch.Tensor
    ) -> torch.Tensor:
        """Take ridge regression as the linear prediction, and its error as the first sigma; the head starts at 0.

        Args:
            features_KNF: all versions of the training pictures, which ``standardise_features`` has seen.
            y_N: their standardised targets.
            tune_TF: features of the tune split, which chooses the penalty.
            y_tune_T: its standardised targets.

        Returns:
            Shape (K, N): the linear prediction of every training row without its own picture. What the head
            learns beside the ridge's prediction of its own training rows is too small a residual.
        """
        z_KNF, z_tune_TF = ((x - self.feature_mean) / self.feature_sd for x in (features_KNF, tune_TF))
        ridge = fit_ridge(z_KNF, y_N, z_tune_TF, y_tune_T)
        error = float(torch.square(ridge.held_out_KN - y_N).mean().sqrt())
        output = self.head[-1]
        assert isinstance(output, nn.Linear)
        with torch.no_grad():
            self.linear_weights.copy_(ridge.weights_F)
            output.weight.zero_()
            output.bias.copy_(torch.tensor([0.0, _inverse_softplus(error - SIGMA_FLOOR) - _UNIT_SOFTPLUS]))
        return ridge.held_out_KN.to(features_KNF.dtype)


def _inverse_softplus(value: float) -> float:
    return math.log(math.expm1(max(value, SIGMA_FLOOR)))


def _principal_axes(z_NF: torch.Tensor, n_axes: int) -> torch.Tensor:
    """Leading eigenvectors of the covariance, by way of the smaller of its two Gram matrices; shape (n_axes, F)."""
    n, n_features = z_NF.shape
    tall = n >= n_features
    values, vectors = torch.linalg.eigh(z_NF.T @ z_NF if tall else z_NF @ z_NF.T)
    values, vectors = values.flip(0)[:n_axes], vectors.flip(1)[:, :n_axes]
    kept = values > 1e-9 * values[0]
    values, vectors = values[kept], vectors[:, kept]
    axes_KF = vectors.T if tall else (vectors.T @ z_NF) / values.sqrt()[:, None]
    padded_KF = z_NF.new_zeros(n_axes, n_features)
    padded_KF[: len(axes_KF)] = axes_KF / (values[0] / n).sqrt()
    return padded_KF


def normalise(x_B1HW: torch.Tensor) -> torch.Tensor:
    """Grey levels in [0, 1] to the three channels that ImageNet networks expect.

    Training and inference both come through here, so the two cannot drift apart.

    Args:
        x_B1HW: float pictures with one channel.

    Returns:
        Shape (B, 3, H, W): the grey picture three times, less ImageNet's channel mean, over its channel SD.
    """
    mean_C11 = torch.tensor(IMAGENET_MEAN, dtype=x_B1HW.dtype, device=x_B1HW.device)[:, None, None]
    sd_C11 = torch.tensor(IMAGENET_SD, dtype=x_B1HW.dtype, device=x_B1HW.device)[:, None, None]
    x_BCHW = (x_B1HW - mean_C11) / sd_C11
    # Channels last makes VGG16 about 1.5 times as fast on a CPU.
    return x_BCHW.contiguous(memory_format=torch.channels_last)


def build_network(config: NetworkConfig, *, seed: int, distilled: bool = False) -> GaussianNetwork:
    """Build a member with its starting weights.

    Args:
        config: the architecture.
        seed: of the dense layers, and of the convolutions where ``weights`` is random.
        distilled: with three outputs.

    Raises:
        ConfigError: the backbone has no ``features``, or its weights cannot be had; the message says what to do.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if config.weights == "random":
            backbone = _cut(_random_backbone(config.backbone), config)
        else:
            backbone = _empty_backbone(config)
            backbone.load_state_dict(_read_weights(config), assign=True)
        network = GaussianNetwork(backbone, config, distilled=distilled)
    _freeze(network, config.trainable)
    return network.to(memory_format=torch.channels_last)


def empty_network(config: NetworkConfig, *, distilled: bool = False) -> GaussianNetwork:
    """The architecture without weights (meta tensors), for ``load_state_dict(..., assign=True)``."""
    with torch.device("meta"):
        network = GaussianNetwork(_empty_backbone(config), config, distilled=distilled)
    _freeze(network, config.trainable)
    return network


def _empty_backbone(config: NetworkConfig) -> nn.Sequential:
    """Convolutions without weights; no memory is taken for the classifier that torchvision would add."""
    with torch.device("meta"):
        return _cut(_random_backbone(config.backbone), config)


def _random_backbone(name: str) -> nn.Sequential:
    if name == COMPACT:
        return _compact_backbone()
    import torchvision  # takes longer than torch itself, and the compact network has no use for it

    features = getattr(torchvision.models.get_model(name, weights=None), "features", None)
    if not isinstance(features, nn.Sequential):
        raise ConfigError(f"network.backbone: {name!r} has no 'features' part; allowed: for example vgg16, densenet121")
    return features


def _compact_backbone() -> nn.Sequential:
    """Four 3 x 3 convolutions: pictures of 64 to 128 pixels, a CPU core, a few hundred patients."""
    layers: list[nn.Module] = []
    n_in = 3
    for block, n_out in enumerate(_COMPACT_CHANNELS):
        if block:
            layers.append(nn.MaxPool2d(2))
        stride = 2 if block == 0 else 1
        layers += [nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()]
        n_in = n_out
    return nn.Sequential(*layers)


def _pooled_layers(backbone: nn.Sequential, config: NetworkConfig) -> frozenset[int]:
    """Indices of the layers whose outputs are pooled: the last before each pooling layer that ends a wanted block."""
    if not config.feature_blocks:
        return frozenset({len(backbone) - 1})
    ends = _block_ends(backbone)
    return frozenset(ends[block - 1] for block in config.feature_blocks)


def _block_ends(backbone: nn.Sequential) -> list[int]:
    """Index of the last layer of each block; a pooling layer at the very end closes no block of its own."""
    ends = [index - 1 for index, layer in enumerate(backbone) if isinstance(layer, nn.MaxPool2d)]
    return ends if isinstance(backbone[-1], nn.MaxPool2d) else [*ends, len(backbone) - 1]


def _cut(backbone: nn.Sequential, config: NetworkConfig) -> nn.Sequential:
    """Leave out what no pooled map needs: the pooling layer at the end, and blocks behind the last one wanted.

    Raises:
        ConfigError: blocks that this backbone does not have.
    """
    ends = _block_ends(backbone)
    if not config.feature_blocks:
        return backbone[: ends[-1] + 1] if len(ends) > 1 else backbone
    if len(ends) < 2 or max(config.feature_blocks) > len(ends):
        has = f"has blocks 1 to {len(ends)}" if len(ends) > 1 else "is no plain chain of blocks; use []"
        raise ConfigError(f"network.feature_blocks: found {list(config.feature_blocks)}, but {config.backbone} {has}")
    return backbone[: ends[max(config.feature_blocks) - 1] + 1]


def _count_features(backbone: nn.Sequential, config: NetworkConfig) -> int:
    """Channels of the pooled maps times fields of the grid, from a dry run that computes nothing."""
    shadow = copy.deepcopy(backbone).to("meta").eval()
    wanted = _pooled_layers(backbone, config)
    x_BCHW = torch.zeros(1, 3, 64, 64, device="meta")
    n_channels = 0
    with torch.no_grad():
        for index, layer in enumerate(shadow):
            x_BCHW = layer(x_BCHW)
            n_channels += int(x_BCHW.shape[1]) if index in wanted else 0
    return n_channels * config.pooling_grid**2


def _freeze(network: GaussianNetwork, trainable: str) -> None:
    if trainable == "all":
        return
    frozen: nn.Module = network.backbone
    if trainable == "last_block":
        frozen = network.backbone[: _last_block_start(network.backbone)]
    for parameter in frozen.parameters():
        parameter.requires_grad_(False)


def _last_block_start(backbone: nn.Sequential) -> int:
    """Index of the first layer of the last block.

    In a plain chain of layers (vgg16, compact) the block begins behind the last pooling layer that has weights behind
    it. Where the children are blocks already (densenet, efficientnet, convnext) it is the last one with convolutions.
    """
    convolving = [i for i, layer in enumerate(backbone) if any(p.dim() == 4 for p in layer.parameters())]
    plain = all(isinstance(backbone[i], nn.Conv2d) for i in convolving)
    pools = [i for i, layer in enumerate(backbone) if isinstance(layer, nn.MaxPool2d) and i < convolving[-1]]
    return pools[-1] + 1 if plain and pools else convolving[-1]


def _read_weights(config: NetworkConfig) -> dict[str, torch.Tensor]:
    """State of the convolutions, keys without the ``features.`` prefix, complete and of the right shapes."""
    expected = _empty_backbone(config).state_dict()
    if config.weights == "imagenet":
        found, where = _download(config.backbone), "torchvision's ImageNet weights"
    else:
        found, where = _load_file(config.weights), config.weights
    found = {name.removeprefix("features."): tensor for name, tensor in found.items()}
    problems = [name for name, tensor in expected.items() if name not in found or found[name].shape != tensor.shape]
    if problems:
        raise ConfigError(
            f"network.weights: {where} lacks {len(problems)} of the {len(expected)} tensors of {config.backbone}, "
            f"or has them in another shape, first 'features.{problems[0]}'; save torchvision.models.{config.backbone}"
            "(weights='DEFAULT').features.state_dict()"
        )
    return {name: found[name] for name in expected}


def _load_file(uri: str) -> dict[str, torch.Tensor]:
    if not storage.exists(uri):
        raise ConfigError(
            f"network.weights: {uri!r} is no file; allowed: imagenet, random, or a state file's path or URL"
        )
    try:
        # weights_only: a state file is data; pickled code in it must not run.
        state = torch.load(io.BytesIO(storage.read_bytes(uri)), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds, from zip errors to UnpicklingError
        raise ConfigError(f"network.weights: {uri!r} is not a state file of tensors: {error}") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ConfigError(f"network.weights: {uri!r} holds {type(state).__name__}; expected a mapping of tensors")
    return {str(name): tensor for name, tensor in state.items()}


def _download(backbone: str) -> dict[str, torch.Tensor]:
    import torchvision

    weights = torchvision.models.get_model_weights(backbone).DEFAULT
    try:
        state: dict[str, torch.Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        file_name = Path(weights.url).name
        raise ConfigError(
            f"network.weights: the ImageNet weights of {backbone} could not be downloaded ({error}); without internet, "
            f"copy {file_name} to {Path(torch.hub.get_dir()) / 'checkpoints' / file_name}, "
            f"or set network.weights to that file's path"
        ) from error
    return {name: tensor for name, tensor in state.items() if name.startswith("features.")}
