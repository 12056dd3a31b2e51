"""What a class needs around the chapters, before the day and during it."""
