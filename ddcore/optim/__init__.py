"""Optimizers of images and networks, and the gradient of a training step."""
