"""Explorers: what a learner changes by a control, and sees the model answer. One module an explorer.

Each is also a plain function that returns the same as a table or a picture, for places without widgets.
"""

from course_utils.widgets.attention import explore_attention
from course_utils.widgets.chat import chat_box
from course_utils.widgets.generation import explore_generation
from course_utils.widgets.next_token import explore_next_token
from course_utils.widgets.online_softmax import explore_online_softmax
from course_utils.widgets.prefix_cache import explore_prefix_cache
from course_utils.widgets.roofline import explore_roofline
from course_utils.widgets.tokens import explore_tokens

__all__ = ["chat_box", "explore_attention", "explore_generation", "explore_next_token", "explore_online_softmax",
           "explore_prefix_cache", "explore_roofline", "explore_tokens"]
