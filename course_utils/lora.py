"""LoRA: fine-tuning a model through small matrices beside its large ones, which stay as they are.

To what a linear layer computes, `x @ W.T`, an adapter adds `x @ A.T @ B.T * alpha / rank`. A has `rank` rows and B
`rank` columns, so both together are far smaller than W, and they alone are trained and saved. B starts as zeros: a
fresh adapter changes nothing.

An adapter is a set of layers, each standing in the place of one of the model's own and holding it. To switch
between adapters, to take one off, to merge it into the weights and to unmerge it are one and the same thing: choosing
which layer stands in each place. The model's own weights are never written to, so they need no restoring.

Left out on purpose: several adapters at work at once, a rank for each layer, embeddings and output layer, and the
descendants of LoRA. Adapters are saved and loaded by `course_utils.adapter_checkpoint`.

Source: https://arxiv.org/abs/2106.09685.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_utils.config import Qwen3Config
from course_utils.errors import InputError
from course_utils.language import gettext
from course_utils.linear import Linear
from course_utils.number import finite_number, require_whole_number, whole_number
from course_utils.qwen3 import Qwen3Model, weight_shapes
from course_utils.sampling import random_generator

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
Matrices = dict[str, tuple[Tensor, Tensor]]  # path of a layer -> A, (rank, in_features), and B, (out_features, rank)


@dataclass(frozen=True)
class LoRA:
    """The settings of an adapter.

    Attributes:
        rank: rows of A and columns of B.
        alpha: what the adapter computes is multiplied by alpha / rank, so that another rank needs no other learning
            rate.
        dropout: share of an adapter's inputs that are set to zero while it is trained, 0 to below 1.
        targets: names of the linear layers to adapt, in every layer of the model; any of `TARGETS`.

    Raises:
        InputError: if a setting is out of its range, or there is no such layer.
    """

    rank: int = 8
    alpha: float = 16
    dropout: float = 0.0
    targets: tuple[str, ...] = ("q_proj", "v_proj")

    def __post_init__(self) -> None:
        rank = require_whole_number(gettext("The rank"), self.rank, 1)
        alpha: float | None = whole_number(self.alpha)
        if alpha is None:  # peft writes a whole one without a point
            alpha = finite_number(self.alpha)
        if alpha is None or alpha <= 0:
            raise InputError(gettext("alpha is {alpha!r}: give a positive number.").format(alpha=self.alpha))
        dropout = finite_number(self.dropout)
        if dropout is None or not 0 <= dropout < 1:
            raise InputError(gettext("dropout is {dropout!r}: give a number from 0 to below 1.").format(
                dropout=self.dropout))
        known = isinstance(self.targets, (tuple, list)) and all(target in TARGETS for target in self.targets)
        if not known or not self.targets or len(set(self.targets)) < len(self.targets):
            raise InputError(gettext("targets is {targets!r}: name each layer to adapt once, any of {known}.").format(
                targets=self.targets, known=", ".join(TARGETS)))
        for name, value in (("rank", rank), ("alpha", alpha), ("dropout", dropout), ("targets", tuple(self.targets))):
            object.__setattr__(self, name, value)  # as frozen dataclasses do it themselves

    @property
    def scaling(self) -> float:
        """By what the product of A and B is multiplied."""
        return self.alpha / self.rank


class LoRALinear(nn.Module):
    """A linear layer with an adapter beside it.

    Args:
        base_layer: the model's own layer, quantized or not.
        lora_A: (rank, in_features).
        lora_B: (out_features, rank).
        lora: the settings.
    """

    def __init__(self, base_layer: nn.Module, lora_A: Tensor, lora_B: Tensor, lora: LoRA) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.lora_A, self.lora_B = nn.Parameter(lora_A), nn.Parameter(lora_B)
        self.scaling, self.dropout = lora.scaling, lora.dropout

    def forward(self, x: Tensor) -> Tensor:
        """Args: x: (..., in_features). Returns: (..., out_features), in the dtype of the model's own layer."""
        out = self.base_layer(x)
        # In the adapter's dtype, float32: the small steps of training would be lost in bfloat16.
        low = F.linear(F.dropout(x.to(self.lora_A.dtype), self.dropout, self.training), self.lora_A)  # (..., rank)
        return (out + F.linear(low, self.lora_B) * self.scaling).to(out.dtype)

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """A plain layer that computes the same in a single product, its weight a new tensor."""
        weight = self.base_layer.weight
        assert isinstance(weight, Tensor)
        sum_of_both = (weight + self.lora_B @ self.lora_A * self.scaling).to(weight.dtype)
        return copy.deepcopy(self.base_layer, {id(weight): nn.Parameter(sum_of_both, requires_grad=False)})


class Adapters:
    """The adapters of one model: any number by name, of which one is at work, or none.

    While there are any, the model's own weights are frozen: its trainable parameters are those of the adapter at work.
    They may be quantized as well (QLoRA, https://arxiv.org/abs/2305.14314). A key-value cache belongs to the adapter
    that filled it.

    `compile_model` and `quantize` take the model with the adapter that is at work; what they make keeps that one,
    whatever is chosen here later.

    Args:
        model: is changed in place, and is as it was when the last adapter has been removed.

    Attributes:
        model: the model.
        settings: of each adapter, by its name.
        active: name of the adapter at work; None if the model is on its own.
        merged: whether the active adapter is merged into the weights.

    Raises:
        InputError: if this is no Qwen3Model, or is compiled, or has adapters that are managed elsewhere.
    """

    def __init__(self, model: Qwen3Model) -> None:
        if not isinstance(model, Qwen3Model) or model.compiled:
            raise InputError("Adapters are added to a Qwen3Model that is not compiled: give the model itself, and "
                             "compile it with the adapter at work.")
        if model.adapted:
            raise InputError("This model has an adapter at work already: go on with the Adapters that it was added to, "
                             "or load the model anew.")
        self.model = model
        self.settings: dict[str, LoRA] = {}
        self.active: str | None = None
        self.merged = False
        self._shapes = _target_shapes(model.config)
        self._own = {path: model.get_submodule(path) for path in self._shapes}
        self._standing = dict(self._own)  # what is in each place now
        self._layers: dict[str, dict[str, LoRALinear]] = {}
        self._frozen: list[str] = []  # names of the parameters that were trainable before

    def add(self, name: str, lora: LoRA, seed: int | torch.Generator = 0) -> None:
        """Add a fresh adapter and let it work: the model computes what it did without, until it is trained.

        Args:
            name: any that is not taken.
            lora: the settings.
            seed: of A, which starts with random numbers; the same on every device.

        Raises:
            InputError: if the name is taken, or an argument is of the wrong kind.
        """
        self.check_new(name)
        if not isinstance(lora, LoRA):
            raise InputError(gettext("The settings are {lora!r}: give a LoRA, such as LoRA(rank=8).").format(lora=lora))
        generator = random_generator(seed)
        matrices: Matrices = {}
        for path, (rows, columns) in self.shapes(lora).items():
            lora_A = nn.init.kaiming_uniform_(torch.empty(lora.rank, columns), a=math.sqrt(5), generator=generator)
            matrices[path] = lora_A, torch.zeros(rows, lora.rank)
        self.add_trained(name, lora, matrices)

    def add_trained(self, name: str, lora: LoRA, matrices: Matrices) -> None:
        """Add an adapter that exists already and let it work.

        Args:
            name: any that is not taken.
            lora: the settings.
            matrices: its A and B, one pair for each of `shapes`; they are used as they are, not copied.

        Raises:
            InputError: if the name is taken.
        """
        self.check_new(name)
        layers = {path: LoRALinear(self._own[path], lora_A.to(self.model.device), lora_B.to(self.model.device), lora)
                  for path, (lora_A, lora_B) in matrices.items()}
        self.activate(None)  # now the parameters have their own names
        if not self.settings:
            self._frozen = [path for path, parameter in self.model.named_parameters() if parameter.requires_grad]
            self.model.requires_grad_(False)
        self.settings[name], self._layers[name] = lora, layers
        self.activate(name)

    def activate(self, name: str | None) -> None:
        """Let another adapter work, or with None the model on its own. Whatever was merged is unmerged.

        Raises:
            InputError: if there is no such adapter.
        """
        self._put(self._layers[self._known(name)] if name is not None else {})
        self.active, self.merged = name, False

    def remove(self, name: str) -> None:
        """Take an adapter off for good. Without the last one the model is trainable again where it was before.

        Raises:
            InputError: if there is no such adapter.
        """
        self._known(name)
        if name == self.active:
            self.activate(None)
        del self.settings[name], self._layers[name]
        if not self.settings:
            for parameter in self._frozen:
                self.model.get_parameter(parameter).requires_grad_(True)

    def merge(self) -> None:
        """Add the active adapter to the weights: the model is a plain one, as fast as before, and can be saved so.

        Weights are rounded to the model's own dtype. The adapted matrices are in memory twice until `unmerge`.

        Raises:
            InputError: if no adapter is at work, if it is merged already, or if the model is quantized.
        """
        if self.active is None or self.merged:
            raise InputError(gettext("There is nothing to merge: {name!r} is merged already.").format(name=self.active)
                             if self.merged else gettext("There is nothing to merge: activate an adapter first."))
        if self.model.quantization is not None:
            raise InputError(gettext("This model is quantized to {quantization}, and its integers are too coarse for "
                                     "an adapter: merge it into the original model, and quantize that.").format(
                quantization=self.model.quantization))
        self._put({path: layer.merged() for path, layer in self._layers[self.active].items()})
        self.merged = True

    def unmerge(self) -> None:
        """Put back the weights as they were, bit for bit, and the adapter beside them.

        Raises:
            InputError: if nothing is merged.
        """
        if not self.merged:
            raise InputError("There is nothing to unmerge: no adapter is merged.")
        self.activate(self.active)

    def matrices(self, name: str) -> Matrices:
        """A and B of an adapter, which need not be active, for each layer that it adapts.

        Raises:
            InputError: if there is no such adapter.
        """
        return {path: (layer.lora_A, layer.lora_B) for path, layer in self._layers[self._known(name)].items()}

    def shapes(self, lora: LoRA) -> dict[str, tuple[int, int]]:
        """Path of each layer that settings ask to adapt -> the shape of its weight, (out_features, in_features)."""
        return {path: shape for path, shape in self._shapes.items() if path.rpartition(".")[2] in lora.targets}

    def check_new(self, name: str) -> None:
        """Make sure that an adapter can be called so.

        Raises:
            InputError: if the name is no text, or taken.
        """
        if not isinstance(name, str) or not name:
            raise InputError(gettext("The name of the adapter is {name!r}: give a text.").format(name=name))
        if name in self.settings:
            raise InputError(gettext("There is an adapter {name!r} on this model already: remove "
                                     "it, or choose another name.").format(name=name))

    def _known(self, name: str) -> str:
        if not isinstance(name, str) or name not in self.settings:
            raise InputError(gettext("There is no adapter {name!r} on this model: those it has are {known}.").format(
                name=name, known=", ".join(map(repr, self.settings)) or gettext("none")))
        return name

    def _put(self, layers: Mapping[str, nn.Module]) -> None:
        """Let these layers stand in their places, and the model's own in all others."""
        if any(self.model.get_submodule(path) is not layer for path, layer in self._standing.items()):
            raise InputError("The layers of this model have been exchanged by something else since its adapters were "
                             "added: load the model anew, and its adapters from their files.")
        self.model.adapted = True  # as long as some may stand there
        for path, own in self._own.items():
            before = self._standing[path]
            if isinstance(before, Linear):
                own.to(before.weight)  # where the model was moved to while its own layer was not part of it
            layer = layers.get(path, own).to(self.model.device).train(self.model.training)
            self.model.set_submodule(path, layer)
            self._standing[path] = layer
        self.model.adapted = any(isinstance(layer, LoRALinear) for layer in layers.values())


@dataclass(frozen=True)
class ParameterCount:
    """How many numbers a model consists of, and how many of them are trained."""

    trainable: int
    total: int

    @property
    def share(self) -> float:
        """The trainable ones as a share of all, 0 to 1."""
        return self.trainable / self.total


def count_trainable(model: nn.Module) -> ParameterCount:
    """Count the parameters of a model as it stands, with the adapter at work; a tied matrix counts once.

    Quantized weights are not among them, since PyTorch has no parameters of integers.
    """
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return ParameterCount(sum(size for size, trainable in sizes if trainable), sum(size for size, _ in sizes))


def _target_shapes(config: Qwen3Config) -> dict[str, tuple[int, int]]:
    """Path of each layer that can be adapted -> the shape of its weight, (out_features, in_features)."""
    paths = {name.removesuffix(".weight"): shape for name, shape in weight_shapes(config).items()}
    return {path: (shape[0], shape[1]) for path, shape in paths.items() if path.endswith(TARGETS)}
