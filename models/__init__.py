"""Pure maths: item table, score models, local objectives and solvers, sampling, ranking metrics. No I/O, no flwr."""
