"""What is published of the real Qwen3's tokenizer: token ids of some texts. Numbers only; its files are not ours."""

PUBLISHED_IDS = {
    "Explain large language models.": [840, 20772, 3460, 4128, 4119, 13],
    "明月几时有，把酒问": [30858, 9754, 99195, 13343, 18830, 3837, 99360, 99525, 56007],
    " Large": [20286],
    "<|endoftext|>": [151643],
    "<|im_start|>": [151644],
    "<|im_end|>": [151645],
    "<think>": [151667],
    "</think>": [151668],
}
