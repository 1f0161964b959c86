"""The coordinator: rounds, server optimisers, run store, and the Flower ServerApp around them."""
