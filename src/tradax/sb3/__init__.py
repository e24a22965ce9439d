"""The Stable-Baselines3-compatible face of tradax, and its model files."""
