"""A stand-in for a model in the checks: it wants to write one given text, and remembers how it was called."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ScriptedModel(nn.Module):
    """After its prompt it predicts the tokens of its script, one after another, as long as it is handed them back.

    Args:
        prompt: ids of the prompt.
        script: ids that it goes on with; after the last one it repeats token 1.

    Attributes:
        lengths: number of tokens that each forward pass so far was given.
        astray: whether a pass was given anything but the prompt and the beginning of the script.
        kept_gradients: whether a pass was made with gradients recorded.
    """

    VOCAB_SIZE = 12

    def __init__(self, prompt: Sequence[int], script: Sequence[int]) -> None:
        super().__init__()
        self.prompt, self.script = list(prompt), list(script)
        self.score = nn.Parameter(torch.tensor(4.0))
        self.lengths: list[int] = []
        self.astray, self.kept_gradients = False, False

    @property
    def passes(self) -> int:
        """Number of forward passes so far."""
        return len(self.lengths)

    @property
    def prompt_ids(self) -> Tensor:
        """The prompt as a batch, (1, t)."""
        return torch.tensor([self.prompt])

    def forward(self, token_ids: Tensor, last_only: bool = False) -> Tensor:
        """Logits, (1, t, VOCAB_SIZE); every row but the last asks for token 0."""
        self.kept_gradients |= torch.is_grad_enabled()
        given = token_ids[0].tolist()
        self.lengths.append(len(given))
        done = len(given) - len(self.prompt)
        self.astray |= given != (self.prompt + self.script)[:len(given)] or done < 0
        wanted = torch.zeros(1, len(given), dtype=torch.long)
        wanted[0, -1] = self.script[done] if 0 <= done < len(self.script) else 1
        logits = nn.functional.one_hot(wanted, self.VOCAB_SIZE) * self.score
        return logits[:, -1:] if last_only else logits
