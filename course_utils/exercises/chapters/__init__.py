"""The exercises and questions of each chapter, with the wrong answers that are foreseen and what to say to them."""
