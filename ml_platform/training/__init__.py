"""Training: the rows, the trainers, the loop, and the manifest that says what a model was made from."""
