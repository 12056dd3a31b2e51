"""What a class needs around the chapters, before the day and during it; importing it imports no PyTorch."""

from course_utils.workshop.learners import class_board

__all__ = ["class_board"]
