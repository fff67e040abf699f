"""What is measured: each scenario a small class, told apart by its name."""
