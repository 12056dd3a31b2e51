"""What a workshop needs around the chapters; nothing here imports PyTorch."""

from course_utils.workshop.learners import class_board

__all__ = ["class_board"]
