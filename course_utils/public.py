"""The names that `course_utils` itself offers, each from its own module."""

from course_utils.adapter_checkpoint import load_adapter, save_adapter
from course_utils.batching import ContinuousBatch
from course_utils.chat import ChatTemplate
from course_utils.checkpoint import load_checkpoint, save_checkpoint
from course_utils.compilation import compile_model
from course_utils.completion import generate, stream
from course_utils.config import Qwen3Config
from course_utils.conversation import Conversation
from course_utils.device import get_device
from course_utils.environment import environment_report
from course_utils.errors import CourseError
from course_utils.generation import (
    generate_text_basic,
    generate_text_basic_cache,
    generate_text_basic_stream,
    generate_tokens,
    generate_trace,
    generate_with_stats,
)
from course_utils.hub import download
from course_utils.kv_cache import KVCache, StaticKVCache
from course_utils.loading import load_model, load_sampling, load_tokenizer, random_model
from course_utils.lora import Adapters, LoRA
from course_utils.native import native_model
from course_utils.prefix_cache import PrefixCache, generate_with_prefix
from course_utils.quantization import quantize
from course_utils.qwen3 import Qwen3Model
from course_utils.recording import record
from course_utils.sampling import GREEDY, Sampler, Sampling
from course_utils.speculative import ModelDraft, PromptLookup, Speculation, generate_speculative
from course_utils.tokenizer import Qwen3Tokenizer, StreamDecoder

__all__ = [
    "GREEDY",
    "Adapters",
    "ChatTemplate",
    "ContinuousBatch",
    "Conversation",
    "CourseError",
    "KVCache",
    "LoRA",
    "ModelDraft",
    "PrefixCache",
    "PromptLookup",
    "Qwen3Config",
    "Qwen3Model",
    "Qwen3Tokenizer",
    "Sampler",
    "Sampling",
    "Speculation",
    "StaticKVCache",
    "StreamDecoder",
    "compile_model",
    "download",
    "environment_report",
    "generate",
    "generate_speculative",
    "generate_text_basic",
    "generate_text_basic_cache",
    "generate_text_basic_stream",
    "generate_tokens",
    "generate_trace",
    "generate_with_prefix",
    "generate_with_stats",
    "get_device",
    "load_adapter",
    "load_checkpoint",
    "load_model",
    "load_sampling",
    "load_tokenizer",
    "native_model",
    "quantize",
    "random_model",
    "record",
    "save_adapter",
    "save_checkpoint",
    "stream",
]
