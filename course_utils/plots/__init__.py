"""Pictures a reader looks at, as `plots.name(...)`: a module a theme, and the palette and style that all of them share.

Each function that draws returns a figure; `show_figure` shows it with the sentence that says what one sees.
"""

from course_utils.plots.below import attention_memory, group_trade, product_rates, softmax_in_tiles
from course_utils.plots.bottlenecks import slots, step_bytes, throughput_latency
from course_utils.plots.caching import cache_kinds, cache_memory, recomputation, reuse, step_time
from course_utils.plots.course import course_map
from course_utils.plots.figure import (
    CACHED,
    FAINT,
    GENERATED,
    HATCHES,
    INK,
    PROMPT,
    REJECTED,
    SERIES,
    TINTS,
    cjk_font,
    has_cjk_font,
    show_figure,
    style,
)
from course_utils.plots.generation import (
    PartShape,
    generation_loop,
    model_shapes,
    pipeline,
    prefill_and_decode,
    record_shapes,
    time_by_length,
)
from course_utils.plots.inside import attention_maps, likeliest_by_layer, position_waves, rotary_angles, word_similarity
from course_utils.plots.labels import token_labels
from course_utils.plots.planning import memory_plan, planned_roofline, split_matrices
from course_utils.plots.prefixes import TreeStep, radix_tree, snapshot
from course_utils.plots.sampling import (
    CandidateTable,
    at_temperatures,
    candidate_lines,
    likeliest_tokens,
    number_line,
    ranked_probabilities,
)
from course_utils.plots.speculation import (
    speculation_gain,
    speculation_rounds,
    speculation_step,
    token_shares,
    tokens_per_pass,
)
from course_utils.plots.speed import (
    Point,
    benchmark_picture,
    benchmark_sentence,
    call_times,
    roofline,
    save_benchmark_picture,
    speed_bars,
)
from course_utils.plots.tokens import TokenPieces, pieces_of, token_pieces, vocabulary_sizes, vocabulary_trade
from course_utils.plots.training import (
    abilities,
    learning_curve,
    learning_rate,
    live_learning_curve,
    packed_blocks,
    training_memory,
)
from course_utils.plots.weights import FORMATS, model_sizes, number_formats, parameter_parts, parameters_by_part

__all__ = [
    "CACHED", "FAINT", "FORMATS", "GENERATED", "HATCHES", "INK", "PROMPT", "REJECTED", "SERIES", "TINTS",
    "CandidateTable", "PartShape", "Point", "TokenPieces", "TreeStep", "abilities", "at_temperatures", "attention_maps",
    "attention_memory", "benchmark_picture", "benchmark_sentence", "cache_kinds", "cache_memory", "call_times",
    "candidate_lines", "cjk_font", "course_map", "generation_loop", "group_trade", "has_cjk_font", "learning_curve",
    "learning_rate", "likeliest_by_layer", "likeliest_tokens", "live_learning_curve", "memory_plan", "model_shapes",
    "model_sizes", "number_formats", "number_line", "softmax_in_tiles", "packed_blocks", "parameter_parts",
    "parameters_by_part", "pieces_of", "pipeline", "planned_roofline", "position_waves", "prefill_and_decode",
    "product_rates", "radix_tree", "ranked_probabilities", "recomputation", "record_shapes", "reuse", "roofline",
    "rotary_angles", "save_benchmark_picture", "show_figure", "slots", "snapshot", "speculation_gain",
    "speculation_rounds", "speculation_step", "speed_bars", "split_matrices", "step_bytes", "step_time", "style",
    "throughput_latency", "time_by_length", "token_labels", "token_pieces", "token_shares", "tokens_per_pass",
    "training_memory", "vocabulary_sizes", "vocabulary_trade", "word_similarity",
]
