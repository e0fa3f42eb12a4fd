"""The matrices that write into the residual stream: found by trying, never by their names.

A block adds to what it reads. A linear layer inside it is a *writer* where what it gives is added to the block's output as it
is, but for a factor: a constant, or what another linear layer of the block gives (RWKV's feed-forward value is multiplied by
the sigmoid of its receptance). The error at the residual stream, times that factor, is then the error at the writer's own
output. It changes no model, and knows no prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.backbones.layer_inputs import reading
from workbench.backbones.linear_outputs import editing, install, sizes

if TYPE_CHECKING:
    from workbench.backbones.backbone import Backbone

_TOKENS = 6
_PUSH = {torch.float16: 2e3, torch.float64: 1e12}  # what would be added is lost in what its type can hold
_TOLERANCE = {torch.float32: 2e-3, torch.float64: 2e-3}
ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "sigmoid": torch.sigmoid,
    "silu": torch.nn.functional.silu,
    "tanh": torch.tanh,
}
"""What a block may make of one layer's output before it multiplies another's by it."""


@dataclass(frozen=True)
class Writer:
    """A linear layer whose output is added to the residual stream, times a factor."""

    name: str
    """Its name in the model."""
    layer: int
    """Its block, from 0."""
    inputs: int
    """Numbers that it reads for each token."""
    factor: float = 1.0
    """The constant by which its output is multiplied, where there is no gate."""
    gate: str | None = None
    """The layer whose output, through `activation`, multiplies this one's."""
    activation: str = "identity"

    @property
    def place(self) -> str:
        """Block and name in it: "layer 0 attention.output"."""
        return f"layer {self.layer} {self.within}"

    @property
    def within(self) -> str:
        """The name in its block: "attention.output"."""
        return self.name.split(f".{self.layer}.", 1)[1]


@torch.no_grad()
def find_writers(backbone: Backbone) -> tuple[Writer, ...]:
    """Every writer of a backbone, in the order of its modules.

    Each linear layer as wide as the residual stream is pushed by a great amount, on tokens that each block reads from fixed dice.
    Whatever goes on through a norm stays bounded, so that what arrives at the block's end, over the push, is the factor: one
    for all tokens and channels, or equal to an activation of another layer's output, or the layer is no writer. All blocks
    are tried in one run for each name that layers have in them.
    """
    view = backbone.view()
    layers = [next(name for name, m in view.model.named_modules() if m is layer) for layer in view.layers]
    found: dict[str, tuple[int, int]] = {}  # linear layers of the right size: block and inputs
    gates: dict[str, int] = {}
    for number, layer in enumerate(layers):
        for name, module in view.model.get_submodule(layer).named_modules():
            size = sizes(module)
            if size is not None and size[1] == backbone.width:
                found[f"{layer}.{name}"] = number, size[0]
            if size is not None and size[1] in (1, backbone.width):
                gates[f"{layer}.{name}"] = number
    install(view.model, gates)

    dtype, device = view.dtype, view.device
    push = _PUSH.get(dtype, 1e8)
    dice = torch.Generator().manual_seed(0)
    fixed = torch.randn(view.num_layers, _TOKENS, view.width, generator=dice)
    signs = (torch.rand(_TOKENS, view.width, generator=dice) < 0.5).float() * 2 - 1
    fixed, signs = fixed.to(device, dtype), signs.to(device, dtype)

    def run(pushed: str | None) -> tuple[dict[int, Tensor], dict[str, Tensor]]:
        """What each block adds to what it reads, with the layers of one name pushed; and what all layers give."""
        added: dict[int, Tensor] = {}
        given: dict[str, Tensor] = {}

        def feed(layer: int, hidden: Tensor) -> Tensor:
            if layer:
                added[layer - 1] = (hidden[0] - fixed[layer - 1]).float()
            return fixed[layer][None] if layer < view.num_layers else fixed[-1][None]

        def edit(name: str, x: Tensor, output: Tensor) -> Tensor:
            if output.dim() != 3 or output.shape[1] != _TOKENS:
                return output
            if name in found and name.split(f".{found[name][0]}.", 1)[1] == pushed:
                return output + push * signs
            given[name] = output[0].float()
            return output

        ones = torch.ones(1, _TOKENS, dtype=torch.bool, device=device)
        with reading(feed), editing(edit):
            view.runner(fixed[:1], ones, torch.arange(_TOKENS, device=device)[None])
        return added, given

    plain, outputs = run(None)
    tolerance = _TOLERANCE.get(dtype, 0.1)
    writers = {}
    for within in dict.fromkeys(name.split(f".{at}.", 1)[1] for name, (at, _) in found.items()):
        added, _ = run(within)
        for name, (layer, inputs) in found.items():
            if name.split(f".{layer}.", 1)[1] == within:
                factor = (added[layer] - plain[layer]) / (push * signs.float())
                made = _writer(name, layer, inputs, factor, gates, outputs, tolerance)
                if made is not None:
                    writers[name] = made
    return tuple(writers[name] for name in found if name in writers)


def _writer(
    name: str,
    layer: int,
    inputs: int,
    factor: Tensor,
    gates: Mapping[str, int],
    outputs: Mapping[str, Tensor],
    tolerance: float,
) -> Writer | None:
    """The writer, if what arrives (T, width) is a factor that can be told."""
    size = float(factor.abs().mean())
    if not size > 1e-4:
        return None
    if float((factor - factor.mean()).abs().max()) <= tolerance * size:
        return Writer(name, layer, inputs, round(float(factor.mean()), 6))
    for gate, at in gates.items():
        if at != layer or gate == name or gate not in outputs:
            continue
        for activation, function in ACTIVATIONS.items():
            expected = function(outputs[gate]).expand_as(factor)
            if float((factor - expected).abs().max()) <= tolerance * float(expected.abs().max()):
                return Writer(name, layer, inputs, gate=gate, activation=activation)
    return None
