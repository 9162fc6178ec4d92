"""What should happen: the quantum graph, resolved before anything runs, and the plan file."""
