"""What is in a dataset: as text, as a picture, and what a trainer would trip over."""
