"""Deep prompt tuning: trained vectors before the input of chosen layers (arXiv 2412.18582; Qin and Eisner 2021).

Holds the method only; how a layer's vectors enter a model, and where they are refused, is `start.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from torch import Tensor, nn

from workbench.backbones.backbone import Backbone
from workbench.errors import WorkbenchError, unknown
from workbench.methods import priors
from workbench.methods.apply import try_out
from workbench.methods.injection import Injection
from workbench.methods.method import Method, described

Form = Literal["longer", "cut"]
INPUT: Literal["input"] = "input"


@dataclass(frozen=True)
class DeepPromptConfig:
    """What a deep prompt is before it is trained."""

    tokens: int = 20
    """Number of vectors at each chosen place; the paper uses 20."""
    layers: tuple[int | Literal["input"], ...] = (INPUT, -3, -2, -1)
    """Where they stand: "input", and layers from 0 (or from the end, as -1); the paper's are these."""
    form: Form = "longer"
    """Whether a layer's vectors stay in the sequence from there on, or are cut from that layer's output. The paper cuts,
    and saw no difference; a recurrent layer cannot cut."""
    prior: dict[str, Any] = field(default_factory=lambda: {"name": "vocabulary"})
    """Where the vectors start, as a prior describes itself; fitted to what each layer reads."""
    seed: int = 0
    """Seed of the draw from the prior."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))  # JSON gives a list
        if self.tokens < 1:
            raise WorkbenchError(
                f"a deep prompt of {self.tokens} tokens cannot be trained; give tokens=1 or more"
            )
        if not self.layers or len(set(self.layers)) < len(self.layers):
            raise WorkbenchError(f"layers are {self.layers}; name at least one, and each once")
        if self.form not in get_args(Form):
            raise unknown("form", self.form, get_args(Form))
        priors.from_description(self.prior)


class DeepPrompt(Method):
    """P trained vectors at the input and at chosen layers.

    >>> method = wb.DeepPrompt(backbone, tokens=20, layers=("input", -3, -2, -1))

    Args:
        backbone: the model to be prompted.
        config: a whole configuration, or the fields of one as keywords, see `DeepPromptConfig`.

    Attributes:
        vectors: place ("input", "layer 2", …) to (P, width) float32; the trained parameters.

    Raises:
        WorkbenchError: a layer that the backbone does not have, or a form that it cannot serve.
    """

    kind = "deep-prompt"
    Config = DeepPromptConfig

    def __init__(self, backbone: Backbone, config: DeepPromptConfig | None = None, **fields: Any):
        config = config or DeepPromptConfig(**described(fields))
        super().__init__(backbone, config)
        self.places = {_name(layer, backbone): layer for layer in config.layers}
        self.vectors = nn.ParameterDict()
        for name, layer in self.places.items():
            at = None if layer == INPUT else int(layer) % backbone.num_layers
            self.vectors[name] = nn.Parameter(self.draw(backbone, config.tokens, at))
        try_out(backbone, self.injection())  # refused now rather than at the first step

    def injection(self) -> Injection:
        """The vectors, for every row alike."""
        deep = {int(name.split()[1]): v[None] for name, v in self.vectors.items() if name != INPUT}
        shallow = self.vectors[INPUT][None] if INPUT in self.vectors else None
        return Injection(shallow, deep or None, self.config.form == "cut")

    def drawn(self) -> dict[int | None, Tensor]:
        """The vectors, each among what its layer reads."""
        return {None if name == INPUT else int(name.split()[1]): v for name, v in self.vectors.items()}

    def snapshot(self) -> dict[str, Tensor]:
        """Each place's vectors (P, width); those of the input are called `embeddings`."""
        return {
            "embeddings" if name == INPUT else name: v.detach().cpu().clone()
            for name, v in self.vectors.items()
        }

    @property
    def prompt_length(self) -> int:
        """P for each place: every vector takes a position."""
        return self.config.tokens * len(self.places)


def _name(layer: int | str, backbone: Backbone) -> str:
    if layer == INPUT:
        return INPUT
    if not isinstance(layer, int) or not -backbone.num_layers <= layer < backbone.num_layers:
        raise WorkbenchError(
            f"{backbone.name} has layers 0 to {backbone.num_layers - 1} (or -1 for the last), not {layer!r}"
        )
    return f"layer {layer % backbone.num_layers}"
