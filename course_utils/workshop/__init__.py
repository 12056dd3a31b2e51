"""What a class needs around the chapters: what an instructor wants to know before the day, and has to prepare."""
