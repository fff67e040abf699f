"""A turn: the model answers, calls tools, and answers again, until it is done or stopped."""
