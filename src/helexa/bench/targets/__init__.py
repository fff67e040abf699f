"""What is measured: neurons, which tell everything about themselves, and any other endpoint."""
