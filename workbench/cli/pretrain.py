"""`workbench pretrain`: the bundled backbones from nothing, by their recipes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from workbench.backbones.pretrain import RECIPES, PretrainConfig, pretrain
from workbench.cli.options import value_of
from workbench.cli.progress import Progress


@dataclass(frozen=True)
class Pretrain:
    """Train a small backbone from nothing on the small world, and write its model card.

    `workbench pretrain --backbone tiny-rwkv` follows the recipe of that name, with the options that are given in
    place of the recipe's. The same command again goes on where it was interrupted.
    """

    folder: Path
    """Where the run is kept, runs/ and the backbone's name unless told; the finished backbone is its subfolder
    `backbone`."""
    config: PretrainConfig = field(default_factory=PretrainConfig)
    device: str = "auto"
    """auto takes a GPU where there is one."""

    @classmethod
    def defaults(cls, words: Sequence[str]) -> Pretrain:
        """The recipe of the named backbone; a new name starts from the recipe of tiny-llama."""
        name = value_of(words, "--backbone") or PretrainConfig.backbone
        return cls(folder=Path("runs") / name, config=RECIPES.get(name, PretrainConfig(backbone=name)))

    def run(self) -> int:
        """Trains to the end, or until Ctrl-C."""
        steps = pretrain(self.config, self.folder, device=self.device)
        with Progress(self.config.steps) as progress:
            try:
                for step in steps:
                    progress.step(step.index, step.loss, step.evaluation)
            except KeyboardInterrupt:
                raise KeyboardInterrupt(f"after step {progress.index}; the same command goes on") from None
        print(self.folder / "backbone")
        return 0
