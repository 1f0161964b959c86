"""The device: local training on one person's history, and the Flower ClientApp around it."""
